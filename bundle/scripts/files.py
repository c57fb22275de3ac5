# SPDX-License-Identifier: Apache-2.0
"""Files written whole or not at all, and read as tensors only."""

from __future__ import annotations

import errno
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from .errors import InputError, is_lost_worker

DAMAGED = (
    *(pickle.UnpicklingError, zipfile.BadZipFile, struct.error, zlib.error),
    *(RuntimeError, EOFError, LookupError, ValueError, TypeError, AttributeError, AssertionError, ArithmeticError),
)
"""What reading a file that is cut short, overwritten, hostile or of another kind raises."""

NUMPY_NUMBERS: list[Any] = [
    *((np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *(np.dtype, *{type(np.dtype(kind)) for kind in (np.float32, np.float64, np.int32, np.int64, np.bool_)}),
]
"""Beside tensors: single numbers of NumPy, which nnU-Net's checkpoints have in their logs."""

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
        if is_lost_worker(error):  # PyTorch tells of it by an error in whatever line is running
            raise
        kept = "the previous one is kept" if path.exists() else "nothing was written"
        raise InputError(f"{path} cannot be written ({error}); {kept}: free or change {option}") from error


def save_atomically(content: Any, path: Path, option: str = "output_dir", part: str = "") -> None:
    """Write tensors and plain containers, see :func:`write_atomically`."""
    write_atomically(path, lambda file: torch.save(content, file), option, part)


def write_text(text: str, path: Path) -> None:
    """Write a text, see :func:`write_atomically`."""
    write_atomically(path, lambda file: file.write(text.encode()))


def load_file(path: str | Path) -> Any:
    """
    Read a file that :func:`save_atomically` wrote; code in it is never run (``weights_only``).

    Raises:
        InputError: when it is missing, cannot be read, is damaged, or holds more than tensors and plain containers.
    """
    try:
        with open(path, "rb") as file:
            with torch.serialization.safe_globals(NUMPY_NUMBERS):
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
        raise InputError(
            f"{path} is not a readable checkpoint: it is damaged or holds more than tensors; of a network "
            "of another program save torch.save(network.state_dict(), 'model.pt')"
        ) from error
    return content
