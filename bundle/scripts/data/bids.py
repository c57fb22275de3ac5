# SPDX-License-Identifier: Apache-2.0
"""The scans of a data set in BIDS, the Brain Imaging Data Structure: by subject, session and suffix."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .result_names import VOLUME_ENDINGS, split_ending

ENTITIES = re.compile(r"_((?:acq|ce|trc|rec|echo|flip|inv|mt|part)-[^_]+)")
"""What a scan's name says of how it was acquired, besides its suffix."""
NO_SCANS = (
    "mask",
    "dseg",
    "probseg",
    "defacemask",
    "roi",
    "bold",
    "sbref",
    "asl",
    "m0scan",
    "dwi",
    "epi",
    "phasediff",
    "fieldmap",
)
"""Suffixes of label maps, and of series of volumes."""
FIRST = ("T1w", "T2w", "FLAIR", "PDw", "T2starw", "inplaneT1", "ct", "pet")
"""Suffixes that are taken first, where several are equally frequent."""


def is_bids(folder: Path) -> bool:
    """
    Whether a folder is such a data set, or a subject's folder of one: subjects' folders with a folder of a kind of
    image in them.
    """
    return any(kind.is_dir() for path in _subjects(folder) for kind in (*path.glob("anat"), *path.glob("ses-*/*")))


def _subjects(folder: Path) -> list[Path]:
    own = folder.resolve().name.startswith("sub-")
    return [folder] if own else sorted(path for path in folder.glob("sub-*") if path.is_dir())


def suffix_of(name: str) -> str:
    """What stands behind the last ``_`` of a file's name: the kind of image."""
    return split_ending(name)[0].rsplit("_", 1)[-1]


def bids_images(folder: Path) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """
    The scans of all kinds.

    Args:
        folder: of the data set.

    Returns:
        dictionaries with ``image``, ``subject`` (``sub-01``) and ``kind`` (``T1w``, ``T1w ce-gd``); and what was left
        out, with the reason. Derivatives and raw data before conversion are other data sets, and are not looked into.
    """
    found: list[tuple[str, str, str]] = []
    for subject in _subjects(folder):
        for path in sorted(subject.rglob("sub-*")):
            if path.name.lower().endswith(VOLUME_ENDINGS) and path.is_file():
                found.append((str(path), subject.resolve().name, suffix_of(path.name)))
    masks = [path for path, _, kind in found if kind in NO_SCANS or re.search(r"_(desc|label)-[^_]*mask", path)]
    scans = [
        {"image": path, "subject": subject, "kind": " ".join([suffix, *ENTITIES.findall(os.path.basename(path))])}
        for path, subject, suffix in found
        if path not in masks
    ]
    left_out = [(path, "is a mask, a label map or a series of volumes by its BIDS suffix") for path in masks]
    elsewhere = [name for name in ("derivatives", "sourcedata") if os.path.isdir(folder / name)]
    return scans, left_out + [(str(folder / name), "is another data set within BIDS") for name in elsewhere]


def usual_suffix(scans: Sequence[Mapping[str, Any]]) -> str | None:
    """The most frequent suffix of the scans of :func:`bids_images`."""
    counts = Counter(scan["kind"].split()[0] for scan in scans)
    order = [*FIRST, *sorted(counts)]
    return max(counts, key=lambda suffix: (counts[suffix], -order.index(suffix)), default=None)
