# SPDX-License-Identifier: Apache-2.0
"""A step of train.json waits for the device once: for the losses."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext

import pytest
import torch
from monai.bundle import ConfigParser
from scripts.losses import place_contrast
from scripts.training import TermsTrainer
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

SIZE = (16, 20, 24)
ASKING = {
    "nonzero",
    "masked_select",
    "_local_scalar_dense",
    "is_nonzero",
    "equal",
    "_unique2",
    "unique_dim",
    "bincount",
}
CHECKED = {"_linalg_eigh", "_linalg_svd", "linalg_eig", "_linalg_check_errors", "nanmedian"}
"""Here it is PyTorch that asks: whether all went well, or how many numbers there are."""


class Waits(TorchDispatchMode):
    """Counts what a GPU's host waits for: numbers, sizes that depend on them, copies from the CPU to the device."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device, self.found = device, Counter()

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        name = function._schema.name.removeprefix("aten::")
        tensors = [argument for argument in arguments if isinstance(argument, torch.Tensor)]
        indices = arguments[1] if name in ("index", "index_put", "index_put_", "_unsafe_index") else ()
        masked = any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)
        there = any(tensor.device.type == self.device for tensor in tensors)
        if there and (masked or name in ASKING | CHECKED):
            self.found[name] += 1
        result = function(*arguments, **(options or {}))
        moved = isinstance(result, torch.Tensor) and result.device.type != "cpu"
        if moved and any(tensor.device.type == "cpu" and tensor.dim() > 0 for tensor in tensors):
            self.found["copy"] += 1
        return result


class Numbers(TorchFunctionMode):
    """Counts what no operation shows: ``tolist``, for which ``meta`` gives zeros, and tensors made of numbers."""

    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self.device, self.found = waits.device, waits.found

    def __torch_function__(self, function, types, arguments=(), options=None):
        if function is torch.Tensor.tolist:
            self.found["tolist"] += 1
            if arguments[0].device.type == "meta":
                return [0.0] * len(arguments[0])
        result = function(*arguments, **(options or {}))
        if function in (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor) and result.device.type == self.device:
            self.found["copy"] += 1
        return result


def waits_of_a_step(repository, device, known) -> Counter[str]:
    parser = ConfigParser()
    bundle = repository / "bundle"
    parser.read_config(str(bundle / "configs" / "train.json"))
    changed = {"features": [4, 8, 8, 16], "bundle_root": str(bundle), "device": torch.device(device)}
    parser.update({**changed, "optimizer::fused": device == "cpu"})
    network, loss, optimizer, prepare = (
        parser.get_parsed_content(name) for name in ("network", "loss", "optimizer", "train::trainer::prepare_batch")
    )
    images = torch.rand(2, len(known), 1, *SIZE, generator=torch.Generator().manual_seed(0))
    batch = {"image": images[0], "moving": images[1], "label": torch.cat([*images], dim=1)}
    fields = torch.full((2, len(known), 3, *SIZE), 0.5)
    batch |= {"known": torch.tensor(known), "known_affine": torch.eye(3, 4).repeat(len(known), 1, 1)}
    batch |= {"known_displacement": fields[0], "start_displacement": fields[1]}
    waits = Waits(device)

    def moved(*arguments, **options):  # what the batch's own way to the device costs is not counted
        found = prepare(*arguments, **options)
        waits.found.clear()
        return found

    trainer = TermsTrainer(
        device=torch.device(device),
        max_epochs=1,
        train_data_loader=[batch],
        network=network,
        optimizer=optimizer,
        loss_function=loss,
        clip_norm=2.0,
        prepare_batch=moved,
        decollate=False,
        optim_set_to_none=True,
    )
    trainer.logger.disabled = True
    with waits, Numbers(waits):
        trainer.run()
    return waits.found


@pytest.mark.parametrize("known", [[1.0, 0.0], [1.0], [0.0]])
def test_a_step_waits_once(repository, monkeypatch, known):
    """``meta`` stands for a device: whatever asks it for a number ends in an error, or is counted."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # which does not know it, as this does
    monkeypatch.setattr(place_contrast, "drawn", lambda count, generator: torch.rand(count, device="meta"))
    monkeypatch.setattr(torch, "Generator", lambda *_: torch.default_generator)
    assert waits_of_a_step(repository, "meta", known) == {"tolist": 1}
