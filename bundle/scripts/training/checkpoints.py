# SPDX-License-Identifier: Apache-2.0
"""Saving and loading: atomic, tensors and plain containers only, complete or refused."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import InputError
from ..files import load_file, write_atomically

CHECKPOINT, MODEL = "checkpoint.pt", "model.pt"
FORMER_NAMES = {
    "affine_head.": "matching_head.global_matching.",
    "deformable_head.": "matching_head.local_matching.",
}
"""Of the parts of a network, as files of the first releases have them."""


def keep_copy(path: Path, number: int, keep: int) -> None:
    """
    Keep a file under a second name with a number, as ``checkpoint_0007.pt`` (the disk shares the content where it can).

    Args:
        path: the file.
        number: of the copy, above those of earlier ones.
        keep: copies to keep; older ones are removed.
    """
    copy = path.with_name(f"{path.stem}_{number:04d}{path.suffix}")
    copy.unlink(missing_ok=True)
    try:
        os.link(path, copy)
    except OSError:  # a disk without links
        write_atomically(copy, lambda file: file.write(path.read_bytes()))
    for old in kept_copies(path)[:-keep]:
        old.unlink(missing_ok=True)


def kept_copies(path: Path) -> list[Path]:
    """What :func:`keep_copy` has kept, in the order of the numbers: the newest last."""
    copies = {copy.stem.removeprefix(f"{path.stem}_"): copy for copy in path.parent.glob(f"{path.stem}_*{path.suffix}")}
    return [copies[number] for number in sorted(filter(str.isdecimal, copies), key=int)]


def present_names(weights: Mapping[str, torch.Tensor], source: str | Path) -> dict[str, torch.Tensor]:
    """
    Weights under the names that a network has now; a line is printed where they had others.

    Args:
        weights: state dictionary.
        source: where it comes from, for the line.
    """
    renamed: dict[str, torch.Tensor] = {}
    for name, value in weights.items():
        former = next((former for former in FORMER_NAMES if name.startswith(former)), "")
        renamed[FORMER_NAMES.get(former, "") + name.removeprefix(former)] = value
    if renamed.keys() != weights.keys():
        print(f"{source}: weights of the names {' and '.join(FORMER_NAMES)} are read as matching_head.", flush=True)
    return renamed


def load_weights(module: nn.Module, weights: Mapping[str, torch.Tensor], source: str | Path) -> None:
    """
    Load weights that must cover a module exactly.

    Args:
        module: to be filled.
        weights: state dictionary.
        source: where it comes from, for the message.

    Raises:
        InputError: naming what is missing, unexpected or of another shape; the module is then unchanged.
    """
    wanted = module.state_dict()
    weights = present_names(weights, source)
    problems = {
        "missing": [name for name in wanted if name not in weights],
        "unexpected": [name for name in weights if name not in wanted],
        "of another shape": [n for n in wanted if n in weights and weights[n].shape != wanted[n].shape],
    }
    if any(problems.values()):
        shown = "; ".join(f"{len(names)} {kind} ({names[0]})" for kind, names in problems.items() if names)
        raise InputError(
            f"{source} is of another architecture: of {len(wanted)} tensors {shown}; use the settings it was made with"
        )
    module.load_state_dict(weights)


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """
    Load an optimiser's state, moments in the memory layout of their weights: PyTorch's fused Adam goes through both in
    the order of memory, and would mix up those that a run of another ``memory_format`` has left.

    Args:
        optimizer: to be filled.
        state: state dictionary.
    """
    optimizer.load_state_dict(state)
    for weight, values in optimizer.state.items():
        for name, value in values.items():
            if isinstance(value, torch.Tensor) and value.shape == weight.shape:
                values[name] = torch.empty_like(weight, dtype=value.dtype, requires_grad=False).copy_(value)


class ModelLoader:
    """
    Fills a network with the weights of a ``model.pt``, exactly or not at all.

    Args:
        network: to be filled.
        path: a plain state dictionary, or a ``checkpoint.pt``.
    """

    def __init__(self, network: nn.Module, path: str) -> None:
        self.network, self.path = network, path

    def __call__(self, engine: Any = None) -> None:
        """Load; the engine, given by MONAI's habit, is not needed."""
        if not Path(self.path).is_file():
            raise InputError(f"{self.path} does not exist: pass the model.pt of a training run")
        content = load_file(self.path)
        load_weights(self.network, content["network"] if "optimizer" in content else content, self.path)


def start_from(network: nn.Module, path: str | None) -> None:
    """
    Begin with the weights of an earlier run.

    Args:
        network: to be filled.
        path: a ``model.pt`` or ``checkpoint.pt``; None begins at random.
    """
    if path:
        ModelLoader(network, path)()
