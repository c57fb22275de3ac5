# SPDX-License-Identifier: Apache-2.0
"""The scans of a data set in BIDS, the Brain Imaging Data Structure: by subject, session and suffix."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

from ..errors import InputError
from .result_names import VOLUME_ENDINGS, split_ending

NO_SCANS = ("mask", "dseg", "probseg", "defacemask", "roi", "bold", "sbref", "dwi", "epi", "phasediff", "fieldmap")
"""Suffixes of label maps, and of series of volumes."""
FIRST = ("T1w", "T2w", "FLAIR", "PDw", "T2starw", "inplaneT1", "ct", "pet")
"""Suffixes that are taken first, where several are equally frequent."""


def is_bids(folder: Path) -> bool:
    """Whether a folder is such a data set: subjects' folders with a folder of a kind of image in them."""
    subjects = [path for path in folder.glob("sub-*") if path.is_dir()]
    return any(kind.is_dir() for subject in subjects for kind in (*subject.glob("anat"), *subject.glob("ses-*/*")))


def suffix_of(name: str) -> str:
    """What stands behind the last ``_`` of a file's name: the kind of image."""
    return split_ending(name)[0].rsplit("_", 1)[-1]


def bids_images(folder: Path, suffix: str | None = None) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """
    The scans of one suffix.

    Args:
        folder: of the data set.
        suffix: such as ``T1w``; None takes the most frequent one.

    Returns:
        dictionaries with ``image`` and ``subject`` (``sub-01``); and what was left out, with the reason. Derivatives
        and raw data before conversion are other data sets, and are not looked into.

    Raises:
        InputError: where there is no scan of the suffix.
    """
    found: list[tuple[str, str, str]] = []
    for subject in sorted(path for path in folder.glob("sub-*") if path.is_dir()):
        for path in sorted(subject.rglob("sub-*")):
            if path.name.lower().endswith(VOLUME_ENDINGS) and path.is_file():
                found.append((str(path), subject.name, suffix_of(path.name)))
    masks = [path for path, _, kind in found if kind in NO_SCANS or re.search(r"_(desc|label)-[^_]*mask", path)]
    scans = [entry for entry in found if entry[0] not in masks]
    counts = Counter(kind for _, _, kind in scans)
    if suffix is None and counts:
        order = [*FIRST, *sorted(counts)]
        suffix = max(counts, key=lambda kind: (counts[kind], -order.index(kind)))
    if not counts.get(suffix or ""):
        there = ", ".join(f"{count} {kind}" for kind, count in counts.items()) or "no scan"
        raise InputError(f"{folder} (BIDS) holds {there}, no {suffix}: pass --bids_suffix with one of them")
    others = [(path, f"is {kind}, not {suffix} (--bids_suffix {kind} takes these)") for path, _, kind in scans]
    left_out = [entry for entry, (_, _, kind) in zip(others, scans, strict=True) if kind != suffix]
    left_out += [(path, "is a mask, a label map or a series of volumes by its BIDS suffix") for path in masks]
    elsewhere = [name for name in ("derivatives", "sourcedata") if os.path.isdir(folder / name)]
    left_out += [(str(folder / name), "is another data set within BIDS") for name in elsewhere]
    return [{"image": path, "subject": own} for path, own, kind in scans if kind == suffix], left_out
