# SPDX-License-Identifier: Apache-2.0
"""The scans of a data set in BIDS, the Brain Imaging Data Structure: by subject, session and suffix."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .dicom_series import is_dicom
from .result_names import RECORD, VOLUME_ENDINGS, split_ending

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
ELSEWHERE = ("derivatives", "sourcedata")
"""Folders of other data sets."""

BESIDE = (".json", ".tsv", ".csv", ".txt", ".md", ".bval", ".bvec", ".html", ".png")
"""Endings of what lies beside volumes."""


def is_bids(folder: Path) -> bool:
    """
    Whether a folder is such a data set, or a subject's folder of one: a subject's folder with a folder of a kind of
    image in it, and a volume named after the subject.
    """
    return any(
        path.name.lower().endswith(VOLUME_ENDINGS)
        for subject in _subjects(folder)
        if any(kind.is_dir() for kind in (*subject.glob("anat"), *subject.glob("ses-*/*")))
        for path in subject.rglob("sub-*")
    )


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
        out, with the reason: volumes without a BIDS name among it. Derivatives and raw data before conversion are other
        data sets, and are not looked into.
    """
    subjects = {path: path.resolve().name for path in _subjects(folder)}
    found: list[tuple[str, str, str]] = []
    unnamed: list[tuple[str, str]] = []
    volumes, others = _volumes(folder, list(subjects))
    for path in volumes:
        subject = next((subjects[above] for above in path.parents if above in subjects), "")
        if not path.is_file():
            unnamed.append((str(path), "is a link to a file that is not there"))
        elif subject and path.name.startswith("sub-"):
            found.append((str(path), subject, suffix_of(path.name)))
        else:
            unnamed.append((str(path), "is not named as BIDS has it (sub-XX/anat/sub-XX_T1w.nii.gz)"))
    masks = [path for path, _, kind in found if kind in NO_SCANS or re.search(r"_(desc|label)-[^_]*mask", path)]
    scans = [
        {"image": path, "subject": subject, "kind": " ".join([suffix, *ENTITIES.findall(os.path.basename(path))])}
        for path, subject, suffix in found
        if path not in masks
    ]
    left_out = [(path, "is a mask, a label map or a series of volumes by its BIDS suffix") for path in masks]
    elsewhere = [name for name in ELSEWHERE if os.path.isdir(folder / name)]
    left_out += [(str(folder / name), "is another data set within BIDS") for name in elsewhere]
    return scans, [*left_out, *unnamed, *others]


def _volumes(folder: Path, subjects: Sequence[Path]) -> tuple[list[Path], list[tuple[str, str]]]:
    """Volume files of a data set, in alphabetical order; and folders with results of an earlier run or with DICOM."""
    volumes, others = [], []
    links = [path for path in sorted(folder.iterdir()) if path.is_symlink() and path.is_dir()]
    own = folder.resolve()
    outside = [path for path in links if path.name not in ELSEWHERE and not path.resolve().is_relative_to(own)]
    for top in (folder, *(path for path in links if path in subjects or path in outside)):
        for root, folders, names in os.walk(top):
            if RECORD in names and Path(root) != folder:
                others.append((root, f"holds results of an earlier run ({RECORD})"))
                folders.clear()
                continue
            folders[:] = [
                name
                for name in folders
                if not name.startswith(".") and not (Path(root) == folder and name in ELSEWHERE)
            ]
            files = [Path(root, name) for name in sorted(names) if not name.startswith(".")]
            volumes += [path for path in files if path.name.lower().endswith(VOLUME_ENDINGS)]
            if any(_may_be_dicom(path) and is_dicom(path) for path in files):
                others.append((root, "has DICOM files, which are not looked at in a BIDS data set"))
    return sorted(volumes), others


def _may_be_dicom(path: Path) -> bool:
    known = path.name.lower().endswith((*VOLUME_ENDINGS, *BESIDE))
    return not known and path.is_file() and path.stat().st_size > 132


def usual_suffix(scans: Sequence[Mapping[str, Any]]) -> str | None:
    """The most frequent suffix of the scans of :func:`bids_images`."""
    counts = Counter(scan["kind"].split()[0] for scan in scans)
    order = [*FIRST, *sorted(counts)]
    return max(counts, key=lambda suffix: (counts[suffix], -order.index(suffix)), default=None)
