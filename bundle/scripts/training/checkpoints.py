# SPDX-License-Identifier: Apache-2.0
"""Saving and loading: atomic, tensors and plain containers only, complete or refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import InputError
from ..files import load_file, write_atomically
from ..networks.find_weights import find_weights
from ..networks.weights import load_weights

CHECKPOINT, MODEL = "checkpoint.pt", "model.pt"


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
        path: of the weights, plain or as :func:`~scripts.networks.find_weights` finds them.
    """

    def __init__(self, network: nn.Module, path: str) -> None:
        self.network, self.path = network, path

    def __call__(self, engine: Any = None) -> None:
        """Load; the engine, given by MONAI's habit, is not needed."""
        if Path(self.path).is_dir():
            raise InputError(f"{self.path} is a folder: pass the model.pt of a training run, as {self.path}/model.pt")
        if not Path(self.path).is_file():
            raise InputError(f"{self.path} does not exist: pass the model.pt of a training run")
        weights = find_weights(load_file(self.path), self.network.state_dict(), self.path)
        load_weights(self.network, weights, self.path)
        head = weights.get("head.weight")
        if head is not None and not head.any():  # as `make child` writes it
            print(f"note: the last layer of {self.path} has learned nothing yet, it finds nothing: train it first")


def start_from(network: nn.Module, path: str | None) -> None:
    """
    Begin with the weights of an earlier run.

    Args:
        network: to be filled.
        path: see :class:`ModelLoader`; None begins at random.
    """
    if path:
        ModelLoader(network, path)()
