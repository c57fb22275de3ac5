# SPDX-License-Identifier: Apache-2.0
"""The scans of a folder: found, checked, listed with their subjects."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..errors import InputError, refuse_or_leave_out
from .dicom_series import file_stamp, is_dicom, series_paths
from .folder_layouts import laid_out_images, listed_images
from .scan_checks import ScanCheck, inspect_scan, scan_exists, tell_decisions

VOLUME_ENDINGS = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")

SubjectKey = str | Callable[[str], Any] | None


def _walk(folder: Path) -> list[Path]:
    """Volume files, and DICOM series, in alphabetical order."""
    found: list[Path] = []
    seen: set[str] = set()  # links may lead back
    for root, folders, names in os.walk(folder, followlinks=True):
        if os.path.realpath(root) in seen:
            folders.clear()
            continue
        seen.add(os.path.realpath(root))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files = [Path(root, name) for name in sorted(names) if not name.startswith(".")]
        volumes = [path for path in files if path.name.lower().endswith(VOLUME_ENDINGS)]
        found += volumes
        if not volumes and any(path.is_file() and is_dicom(path) for path in files):
            found += [Path(path) for path in series_paths(root)]
    return sorted(found)


def _subject(item: dict[str, Any], folder: Path, key: SubjectKey) -> str:
    name = os.path.relpath(item["image"], folder)
    if key is None:
        return name
    if callable(key):
        return str(key(name))
    if key in item:
        return str(item[key])
    try:
        match = re.search(key, name)
    except (re.error, TypeError) as error:
        raise InputError(f"subject_key '{key}' is no valid regular expression ({error})") from error
    if match is None:
        raise InputError(
            f"{item['image']}: subject_key '{key}' is neither a column of dataset.json nor a regular expression "
            "found in this path"
        )
    return match.group(1) if match.groups() else match.group(0)


def _check_all(
    paths: Sequence[str], spatial_dims: int, min_size: int, record: Path | None, workers: int
) -> dict[str, ScanCheck]:
    """Checks by path. What was found good is remembered in ``record`` by path, size and time of change."""
    known: dict[str, Any] = {}
    if record is not None and record.is_file():
        with suppress(ValueError):  # a record cut short by a crash is made anew
            known = json.loads(record.read_text(encoding="utf-8"))

    def stamp(path: str) -> list[int]:
        return [*file_stamp(path), spatial_dims, min_size]

    stamps = {path: stamp(path) if scan_exists(path) else None for path in paths}
    checks = {
        path: ScanCheck(None, found["notes"], tuple(found["size"]), tuple(found["spacing"]))
        for path, stamped in stamps.items()
        if isinstance(found := known.get(path), dict) and found.get("stamp") == stamped
    }
    unknown = [path for path in paths if path not in checks]
    with ThreadPoolExecutor(workers) as pool:
        results = pool.map(lambda path: inspect_scan(path, spatial_dims, min_size), unknown)
        checks |= zip(unknown, tqdm(results, "Checking scans", len(unknown), disable=not unknown), strict=True)
    if record is not None:
        good = {
            path: {"stamp": stamps[path], "notes": check.notes, "size": check.size, "spacing": check.spacing}
            for path, check in checks.items()
            if check.problem is None
        }
        try:
            record.parent.mkdir(parents=True, exist_ok=True)
            record.write_text(json.dumps(known | good, indent=1), encoding="utf-8")
        except OSError as error:
            raise InputError(
                f"cache_dir {record.parent} cannot be written ({error.strerror}): pass another --cache_dir"
            ) from error
    return {path: checks[path] for path in paths}


def find_scans(
    dataset_dir: str,
    subject_key: SubjectKey = None,
    skip_bad: bool = False,
    spatial_dims: int = 3,
    min_size: int = 4,
    cache_dir: str | None = None,
    workers: int = 2,
    min_subjects: int = 2,
    layout: Mapping[str, Any] | None = None,
    labelled: bool = False,
) -> list[dict[str, Any]]:
    """
    The usable scans of a folder. With a layout the files it names; with a ``dataset.json`` (Medical Segmentation
    Decathlon) its ``training`` images; else every NIfTI, NRRD and MetaImage file and every DICOM series (one folder
    each) below the folder.

    Args:
        dataset_dir: the folder.
        subject_key: what tells subjects apart: a column of dataset.json, a regular expression searched in the path
            relative to the folder (its first group, or the whole match), or a function of that path; None takes every
            scan for a subject of its own.
        skip_bad: leave unusable scans out instead of refusing.
        spatial_dims: 2 or 3.
        min_size: voxels that each axis of a scan must have.
        cache_dir: where to remember which scans were found good; None checks all of them each time.
        workers: threads that read scans.
        min_subjects: how many subjects there must be.
        layout: how the data set lies on disk, see :mod:`scripts.data.folder_layouts`; None or {} for none.
        labelled: leave out the images that have no label by design, as the layout says.

    Returns:
        dictionaries with ``image`` (path), ``subject`` and ``label`` (path) where dataset.json or the layout names one
        that exists; ``missing_label`` where the layout names one that does not.

    Raises:
        InputError: listing every unusable scan; for a missing or empty folder; for too few subjects.
    """
    folder = Path(dataset_dir)
    if not folder.is_dir():
        raise InputError(
            f"dataset_dir {folder} does not exist or is not a folder: pass --dataset_dir <folder of scans>"
        )
    if layout:
        items = laid_out_images(folder, layout, labelled)
        for item in items:
            if "label" in item and not os.path.isfile(item["label"]):
                item["missing_label"] = item.pop("label")
    elif (folder / "dataset.json").is_file():
        items = listed_images(folder)
    else:
        items = [{"image": str(path)} for path in _walk(folder)]
    if not items:
        raise InputError(f"dataset_dir {folder} holds no scan: NIfTI, NRRD, MHA files or DICOM folders are looked for")
    record = Path(cache_dir) / "checked_scans.json" if cache_dir else None
    checks = _check_all([item["image"] for item in items], spatial_dims, min_size, record, workers)
    problems = {path: check.problem for path, check in checks.items() if check.problem}
    refuse_or_leave_out([f"{path} {problem}" for path, problem in problems.items()], len(items), "scans", skip_bad)
    tell_decisions({path: check for path, check in checks.items() if path not in problems})
    usable = [item for item in items if item["image"] not in problems]
    scans = [
        {key: item[key] for key in ("image", "label", "missing_label") if key in item}
        | {"subject": _subject(item, folder, subject_key)}
        for item in usable
    ]
    subjects = {scan["subject"] for scan in scans}
    if len(subjects) < min_subjects:
        raise InputError(
            f"dataset_dir {folder} holds {len(scans)} usable scan(s) of {len(subjects)} subject(s); "
            f"{min_subjects} subjects or more are needed"
        )
    return scans
