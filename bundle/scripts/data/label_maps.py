# SPDX-License-Identifier: Apache-2.0
"""Label maps and masks told from scans, by their names and by what they hold."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

WORDS = ("seg", "label", "mask", "annot", "parc", "aparc", "aseg", "wmparc", "dseg", "probseg", "gt", "roi", "contour")
ENDS = ("mask", "masks", "seg", "label", "labels")
"""Beginnings and ends of words in the names of label maps and of their folders."""
SOFT = ("prob", "pve")
"""Beginnings of words in the names of maps of shares of 0 to 1."""
MOST_CODES = 512
"""Different values of a label map whose name does not tell: scans have more, or more noise."""
NAMED, UNNAMED = 0.3, 0.45
"""Share of neighbours of equal value, outside the background, from which it is one: with a telling name, and without.
In public data it was 0.02 to 0.18 in scans, whose noise makes neighbours differ, and 0.53 to 0.92 in label maps."""
FEWEST = 8
"""Different whole numbers that no scan is made of."""


def is_named_label_map(path: str | Path) -> bool:
    """Whether a file's name, or its folder's, is one that label maps have."""
    *_, folder, name = ("", "", *Path(path).parts)
    words = re.split(r"[^A-Za-z]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", f"{folder} {name}"))
    return any(word.lower().startswith((*WORDS, *SOFT)) or word.lower().endswith(ENDS) for word in words if word)


def is_soft_map(values: np.ndarray, path: str | Path) -> bool:
    """Whether a volume is one of shares of 0 to 1, by its file's name and its values."""
    words = re.split(r"[^A-Za-z]+", Path(path).name.lower())
    return any(word.startswith(SOFT) for word in words) and bool(values.min() >= 0 and values.max() <= 1)


def equal_neighbours(values: np.ndarray) -> float:
    """Share of neighbouring voxels of equal value, of those that are not both background (the most frequent value)."""
    found, counts = np.unique(values, return_counts=True)
    background = found[counts.argmax()]
    equal = both = 0
    for axis in range(values.ndim):
        first, second = np.moveaxis(values, axis, 0)[:-1], np.moveaxis(values, axis, 0)[1:]
        inside = (first != background) | (second != background)
        equal += int(((first == second) & inside).sum())
        both += int(inside.sum())
    return equal / both if both else 1.0


def is_label_map(values: np.ndarray, path: str | Path) -> bool:
    """
    Whether a volume is a label map or a mask and no scan.

    Args:
        values: ``(D, H, W)``.
        path: of its file.

    Returns:
        True for few different values in pieces; fewer signs are needed where the name says so.
    """
    values = np.squeeze(np.asarray(values))
    if values.ndim not in (2, 3) or not values.size:
        return False
    named = is_named_label_map(path)
    middle = values[tuple(slice(n // 4, max(n // 4 + 1, n - n // 4)) for n in values.shape)]
    few = np.unique(middle)
    if is_soft_map(values, path):
        return True
    if len(few) > MOST_CODES and not named:
        return False
    if not named and not np.array_equal(few, np.round(few)):
        return False
    if values.min() == values.max():
        return named
    whole = len(few) <= FEWEST and len(np.unique(values)) <= FEWEST and np.array_equal(few, np.round(few))
    return bool(whole) or equal_neighbours(values) >= (NAMED if named else UNNAMED)
