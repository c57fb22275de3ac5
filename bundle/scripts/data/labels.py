# SPDX-License-Identifier: Apache-2.0
"""Label codes: whole numbers, whatever type a file has them in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

LABEL_TOLERANCE = 0.05
"""By how much a label in a file may be off a whole number: what rounding does to floating point numbers and to integers
that the header scales. Interpolation between two labels makes larger steps."""

ONE_VOLUME = "volumes, a label map is one: store each voxel's code (numpy.argmax of one-hot volumes, background first)"
"""What is wrong with a label map of several volumes, after their number."""

LARGEST_CODE = 2**53
"""Up to which float64, in which label maps are resampled, has every whole number."""


def off_whole(values: np.ndarray) -> np.ndarray:
    """The different values, of those given, that are no whole numbers within the tolerance."""
    found = np.unique(values)
    if found.dtype.kind != "f":
        return found[:0]
    return found[~np.isfinite(found) | (np.abs(found - np.round(np.nan_to_num(found))) > LABEL_TOLERANCE)]


def as_codes(values: np.ndarray) -> np.ndarray:
    """
    Label codes as whole numbers.

    Args:
        values: as a file has them, of any type.

    Returns:
        int64, of the same shape.

    Raises:
        ValueError: naming a value that is none.
    """
    values = np.asarray(values)
    wrong = off_whole(values)
    if wrong.size:
        raise ValueError(
            f"holds {wrong[0]:g}, which is no label: a label map has whole numbers (within {LABEL_TOLERANCE}), and is "
            "resampled by its nearest neighbours"
        )
    for code in (values.min(), values.max()) if values.size else ():
        if abs(int(code)) > LARGEST_CODE:
            raise ValueError(f"holds {code:g}, which is no label: codes go to 2^53; number the structures anew")
    return (np.round(values) if values.dtype.kind == "f" else values).astype(np.int64)


def label_type(codes: torch.Tensor | Sequence[int]) -> type:
    """The smallest type of a NIfTI file that holds label codes and that common tools read."""
    lowest, highest = int(torch.as_tensor(codes).min()), int(torch.as_tensor(codes).max())
    if lowest >= 0 and highest < 2**16:
        return np.uint8 if highest < 2**8 else np.uint16
    return np.int32 if max(highest, -lowest - 1) < 2**31 else np.int64
