# SPDX-License-Identifier: Apache-2.0
"""Everything below a folder without description that may be a scan, and whose it is by the names around it."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from pathlib import Path
from typing import Any

from .dicom_series import find_series, is_dicom, series_paths
from .reading import UNREAD, UNREAD_ENDINGS
from .result_names import RECORD, VOLUME_ENDINGS, scan_name

CONTRASTS = (
    *("t1", "t1c", "t1ce", "t1gd", "t1n", "t1w", "t2", "t2f", "t2w", "flair", "pd", "pdw", "dwi", "adc", "swi", "ct"),
    *("pet", "cbct", "mra", "mr", "mri", "mr1", "bravo", "ir", "reg", "seg", "mask", "label", "gt", "segmentation"),
)
"""Last words of the names of files that show one patient."""
LOCALISER = re.compile(
    r"locali[sz]er|scout|topogram|survey|three.?plane|3.?plane|screen.?s|dose.?report", re.IGNORECASE
)
"""What series for planning a scan, and pictures of a screen, are called."""

NO_CONTRASTS = ("reg", "seg", "mask", "label", "gt", "segmentation", "mr1", "mr", "mri")
"""Those of them that name no kind of scan."""

Found = tuple[list[dict[str, Any]], list[tuple[str, str]]]


def walk(folder: Path, min_size: int = 4) -> Found:
    """
    Volume files, and DICOM series.

    Args:
        folder: where to look; hidden files and folders, what macOS leaves behind, and the results of earlier runs are
            not looked at.
        min_size: images that a DICOM series must have.

    Returns:
        dictionaries with ``image`` and, where names tell, ``subject`` and ``kind`` (the contrast at the end of a file's
        name; modality and description of a DICOM series), in alphabetical order; and what was left out, with the
        reason.
    """
    items: list[dict[str, Any]] = []
    left_out: list[tuple[str, str]] = []
    seen: set[str] = set()  # links may lead back
    discs: list[str] = []
    for root, folders, names in os.walk(folder, followlinks=True):
        if os.path.realpath(root) in seen:
            folders.clear()
            continue
        seen.add(os.path.realpath(root))
        if RECORD in names and Path(root) != folder:
            left_out.append((root, f"holds results of an earlier run ({RECORD})"))
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
        files = [Path(root, name) for name in sorted(names) if not name.startswith(".")]
        if any(path.name.upper() == "DICOMDIR" for path in files):
            discs.append(root)
        volumes = [path for path in files if path.name.lower().endswith(VOLUME_ENDINGS)]
        items += [{"image": str(path)} for path in volumes]
        left_out += [(str(path), UNREAD) for path in files if path.name.lower().endswith(UNREAD_ENDINGS)]
        others = [path for path in files if path not in volumes and path.is_file() and path.stat().st_size > 132]
        if any(map(is_dicom, others)):
            series, refused = _series(root, min_size)
            items += series if not volumes else []
            left_out += refused if not volumes else [(root, "has DICOM files beside volumes of another format")]
    _subjects_by_contrast(items, folder)
    for item in items:
        disc = next((disc for disc in discs if item["image"].startswith(disc + os.sep)), None)
        if disc is not None:
            item["subject"] = os.path.relpath(disc, folder)
    return sorted(items, key=lambda item: Path(item["image"])), left_out


def _series(folder: str, min_size: int) -> Found:
    """The series of one folder that may be scans; several are of one subject."""
    items: list[dict[str, Any]] = []
    left_out = []
    paths = series_paths(folder)
    for path in paths:
        series = find_series(path)
        if series.colours != 1:
            left_out.append((path, "is a series of coloured pictures"))
        elif len(series.slices) < min_size and len({each.path for each in series.slices}) == len(series.slices):
            left_out.append((path, f"is a series of less than {min_size} images"))
        elif any(map(LOCALISER.search, (series.description, series.slices[0].told.get("ImageType", "")))):
            left_out.append((path, "is a series for planning the scan, by its description"))
        else:
            kind = f"{series.modality} {series.description}".strip()
            items.append({"image": path, "kind": kind} | ({"subject": folder} if len(paths) > 1 else {}))
    return items, left_out


def _subjects_by_contrast(items: list[dict[str, Any]], folder: Path) -> None:
    """Files of one folder whose names differ in a contrast at their end are of one subject: ``p1_t1``, ``p1_flair``."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for item in items:
        if "subject" in item:  # a folder of DICOM series
            item["subject"] = os.path.relpath(item["subject"], folder)
            continue
        parts = re.split(r"[-_. ]", scan_name(item["image"]))
        if parts[-1].lower() in CONTRASTS:
            item |= {"kind": parts[-1].lower()} if parts[-1].lower() not in NO_CONTRASTS else {}
            name = scan_name(item["image"])[: -len(parts[-1])].rstrip("-_. ")
            place = os.path.relpath(os.path.dirname(item["image"]), folder)
            groups[unicodedata.normalize("NFC", os.path.normpath(os.path.join(place, name)))].append(item)
    for subject, members in groups.items():
        if len(members) > 1:
            for item in members:
                item["subject"] = subject
