# Copyright (c) GVSL bundle contributors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Saving and loading: atomic, tensors and plain containers only, complete or refused."""

from __future__ import annotations

import errno
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import nn

from .errors import InputError, is_lost_worker

CHECKPOINT, MODEL = "checkpoint.pt", "model.pt"

DAMAGED = (
    *(pickle.UnpicklingError, zipfile.BadZipFile, struct.error, zlib.error),
    *(RuntimeError, EOFError, LookupError, ValueError, TypeError, AttributeError, AssertionError, ArithmeticError),
)
"""What reading a file that is cut short, overwritten, hostile or of another kind raises."""
NO_MEMORY = "DefaultCPUAllocator"
"""Part of PyTorch's RuntimeError when memory has run out."""


def write_atomically(path: Path, write: Callable[[BinaryIO], Any], option: str = "output_dir", part: str = "") -> None:
    """
    Write a file completely or not at all: to a temporary name, flushed to the disk, then renamed.

    Args:
        path: destination; what it holds stays until the new content is complete.
        write: writes the content to an open file.
        option: what the user may change to write elsewhere, for the message.
        part: of the temporary name, different for writers that may come at the same time.

    Raises:
        InputError: when the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}{part}.part")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        kept = "the previous one is kept" if path.exists() else "nothing was written"
        raise InputError(f"{path} cannot be written ({error}); {kept}: free or change {option}") from error


def save_atomically(content: Any, path: Path, option: str = "output_dir", part: str = "") -> None:
    """Write tensors and plain containers, see :func:`write_atomically`."""
    write_atomically(path, lambda file: torch.save(content, file), option, part)


def write_text(text: str, path: Path) -> None:
    """Write a text, see :func:`write_atomically`."""
    write_atomically(path, lambda file: file.write(text.encode()))


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
    """What :func:`keep_copy` has kept, the newest last."""
    return sorted(path.parent.glob(f"{path.stem}_*{path.suffix}"))


def load_file(path: str | Path) -> Any:
    """
    Read a file that :func:`save_atomically` wrote; code in it is never run (``weights_only``).

    Raises:
        InputError: when it is missing, cannot be read, is damaged, or holds more than tensors and plain containers.
    """
    try:
        with open(path, "rb") as file:
            content = torch.load(file, map_location="cpu", weights_only=True)
            if zipfile.is_zipfile(file):  # PyTorch writes checksums, but does not look at them
                with zipfile.ZipFile(file) as archive:
                    damaged = archive.testzip()
                if damaged:
                    raise zipfile.BadZipFile(f"the checksum of {damaged} is wrong")
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist") from error
    except (OSError, *DAMAGED) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # of a place before the start of a short file
            raise InputError(f"{path} cannot be read ({error.strerror or error})") from error
        if NO_MEMORY in str(error) or is_lost_worker(error):  # RuntimeErrors that are not about the file
            raise
        raise InputError(f"{path} is not a readable checkpoint: it is damaged or holds more than tensors") from error
    return content


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
