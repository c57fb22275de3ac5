# SPDX-License-Identifier: Apache-2.0
"""The scans of a folder: found, checked, listed with their subjects."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import InputError, refuse_or_leave_out
from ..progress import progress
from .bids import bids_images, is_bids, usual_suffix
from .channels import is_further_channel
from .copies import join_copies
from .dataset_json import first_channel, is_blank, listed_images
from .dry_run import Survey, show_and_leave
from .folder_layouts import laid_out_images
from .kinds import by_values, take_kind, tell_kinds
from .left_out import tell_alike, tell_left_out, without_links, without_odd_names
from .scan_checks import ScanCheck, inspect_scan, scan_exists, tell_decisions, tell_sizes
from .stamps import file_stamp
from .walk_folder import walk

TOLD = ("notes", "label_map", "ct", "digest")
"""What is remembered of a check besides size and voxel size."""
FORM = "float32"
"""Of the digests that are remembered: those of earlier versions, which tell other types apart, are made anew."""

SubjectKey = str | Callable[[str], Any] | None


def _subject(item: dict[str, Any], folder: Path, key: SubjectKey) -> str:
    name = os.path.relpath(item["image"], folder)
    if key is None:
        return name if is_blank(item.get("subject")) else str(item["subject"])
    if callable(key):
        return str(key(name))
    if key in item:
        if is_blank(item[key]):
            raise InputError(
                f"{item['image']}: its column '{key}' of dataset.json is empty: fill it in, or take another subject_key"
            )
        return str(item[key])
    if str(key).startswith("$"):
        raise InputError(
            f"subject_key '{key}' is an expression, but on the command line it is text, a column or a regular "
            "expression: write it into a JSON file and pass that as a further configuration (--config_file)"
        )
    try:
        match = re.search(key, name)
    except (re.error, TypeError) as error:
        raise InputError(f"subject_key '{key}' is no valid regular expression ({error})") from error
    if match is None:
        raise InputError(
            f"{item['image']}: subject_key '{key}' is neither a column of dataset.json nor a regular expression "
            "found in this path"
        )
    return next((group for group in match.groups() if group is not None), match.group(0))


def _check_all(
    paths: Sequence[str], spatial_dims: int, min_size: int, record: Path | None, workers: int, channels: int = 1
) -> dict[str, ScanCheck]:
    """Checks by path. What was found good is remembered in ``record`` by path, size and time of change."""
    known: dict[str, Any] = {}
    if record is not None and record.is_file():
        with suppress(ValueError):  # a record cut short by a crash is made anew
            known = json.loads(record.read_text(encoding="utf-8"))

    def stamp(path: str) -> list[int | str]:
        return [FORM, *file_stamp(path), spatial_dims, min_size, *([channels] if channels > 1 else [])]

    stamps = {path: stamp(path) if scan_exists(path) else None for path in paths}
    checks = {
        path: ScanCheck(size=tuple(found["size"]), spacing=tuple(found["spacing"]), **{key: found[key] for key in TOLD})
        for path, stamped in stamps.items()
        if isinstance(found := known.get(path), dict) and found.get("stamp") == stamped and found.keys() >= {*TOLD}
    }
    unknown = [path for path in paths if path not in checks]
    with ThreadPoolExecutor(workers) as pool:
        results = pool.map(lambda path: inspect_scan(path, spatial_dims, min_size, channels=channels), unknown)
        checks |= zip(unknown, progress(results, "Checking scans", len(unknown)), strict=True)
    if record is not None:
        good = {
            path: {key: value for key, value in asdict(check).items() if key != "problem"} | {"stamp": stamps[path]}
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


def survey(
    dataset_dir: str,
    subject_key: SubjectKey = None,
    skip_bad: bool | None = False,
    spatial_dims: int = 3,
    min_size: int = 4,
    cache_dir: str | None = None,
    workers: int = 2,
    min_subjects: int = 2,
    layout: Mapping[str, Any] | None = None,
    labelled: bool = False,
    label_maps: bool = False,
    kind: str | None = None,
    has_options: bool = True,
    channels: int = 1,
) -> Survey:
    """
    Everything of a folder that may be a scan, checked; see :func:`find_scans`.
    """
    folder = Path(dataset_dir)
    if not folder.is_dir():
        raise InputError(
            f"dataset_dir {folder} does not exist or is not a folder: pass --dataset_dir <folder of scans>"
        )
    left_out: list[tuple[str, str]] = []
    walked, usual = False, None
    if layout:
        items = laid_out_images(folder, layout, labelled)
        for item in items:
            if "label" in item and not os.path.isfile(item["label"]):
                item["missing_label"] = item.pop("label")
    elif (folder / "dataset.json").is_file():
        items = listed_images(folder)
        usual = first_channel(items)
    elif is_bids(folder):
        items, left_out = bids_images(folder)
        usual = usual_suffix(items)
    else:
        walked = True
        items, left_out = walk(folder, min_size)
    if channels > 1:
        items = [item for item in items if not is_further_channel(item["image"])]
    items, odd = without_odd_names(items)
    left_out += odd
    if not items:
        raise InputError(
            f"dataset_dir {folder} holds no scan: NIfTI, NRRD, MHA files or DICOM folders are looked for"
            + "".join(f"\n  {path} {why}" for path, why in left_out[:5])
        )
    items, links = without_links(items)
    left_out += links
    named = all(item.get("kind") for item in items)
    if named:
        items, others = take_kind(items, kind, folder, usual)
        left_out += others
    record = Path(cache_dir) / "checked_scans.json" if cache_dir else None
    checks = _check_all([item["image"] for item in items], spatial_dims, min_size, record, workers, channels)
    if walked and not label_maps:
        items, maps = _without_label_maps(items, checks)
        left_out += maps
    by_values(items, {path: check.ct for path, check in checks.items()})
    if not named:
        items, others = take_kind(items, kind, folder)
        left_out += others
    problems = {item["image"]: problem for item in items if (problem := checks[item["image"]].problem)}
    if not has_options:
        left_out = [(path, why.split(" (--label_maps")[0]) for path, why in left_out]
    tell_left_out(left_out)
    refuse_or_leave_out([f"{path} {problem}" for path, problem in problems.items()], len(items), "scans", skip_bad)
    usable = [item for item in items if item["image"] not in problems]
    good = {item["image"]: checks[item["image"]] for item in usable}
    tell_decisions(good)
    tell_sizes(good)
    tell_kinds(usable)
    kept = ("image", "label", "missing_label")
    scans = [
        {key: item[key] for key in kept if key in item}
        | {"subject": unicodedata.normalize("NFC", _subject(item, folder, subject_key)), "kind": item.get("kind", "")}
        for item in usable
    ]
    tell_alike([scan["subject"] for scan in scans])
    join_copies(scans, good, min_subjects)
    subjects = {scan["subject"] for scan in scans}
    if len(subjects) < min_subjects:
        raise InputError(
            f"dataset_dir {folder} holds {len(scans)} usable scan(s) of {len(subjects)} subject(s); "
            f"{min_subjects} subjects or more are needed"
        )
    return Survey(scans, good, [*left_out, *problems.items()])


def _without_label_maps(
    items: Sequence[dict[str, Any]], checks: Mapping[str, ScanCheck]
) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """Items that are scans; and the label maps, which become the labels of the scans of their subject's files."""
    maps = [item for item in items if checks[item["image"]].label_map]
    scans = [item for item in items if not checks[item["image"]].label_map]
    if not scans:  # the folder is one of label maps, and asked for
        return list(items), []
    return scans, [(item["image"], "is a label map or mask (--label_maps True takes it for a scan)") for item in maps]


def find_scans(dataset_dir: str, subject_key: SubjectKey = None, dry_run: bool = False, **options: Any) -> list[dict]:
    """
    The usable scans of a folder: with a layout the files it names; with a ``dataset.json`` its ``training`` images
    (Medical Segmentation Decathlon) or cases (nnU-Net 2); of a data set in BIDS those of one suffix; else every NIfTI,
    NRRD and MetaImage file that is no label map, and every DICOM series, below the folder.

    Args:
        dataset_dir: the folder.
        subject_key: what tells subjects apart: a column of dataset.json, a regular expression searched in the path
            relative to the folder (its first group that matched, or the whole match), or a function of that path; None
            goes by what the layout of the folder says (BIDS; files of one patient that differ in the contrast at the
            end of their names; a patient's CD), and else takes every scan for a subject of its own.
        dry_run: list what would be used and what was left out, and end the program.
        options: ``skip_bad``, leave unusable scans out instead of refusing; ``spatial_dims``, 2 or 3; ``min_size``,
            voxels that each axis of a scan must have; ``cache_dir``, where to remember which scans were found good
            (None checks all of them each time); ``workers``, threads that read scans; ``min_subjects``, how many
            subjects there must be; ``layout``, how the data set lies on disk, see
            :mod:`scripts.data.folder_layouts`, None or {} for none; ``labelled``, leave out the images that have no
            label by design, as the layout says; ``label_maps``, take label maps for scans too; ``kind`` of scan to
            take, see :func:`~scripts.data.kinds.take_kind`: None takes the most frequent suffix of BIDS, the first
            channel of nnU-Net's, and all kinds of other folders; ``has_options``, whether the configuration has a
            setting label_maps, which is then advised; ``channels``, of each image, in its file
            or in files beside it, see :func:`~scripts.data.channel_files`.

    Returns:
        dictionaries with ``image`` (path), ``subject`` (of copies of a scan that of the first; ``listed_as`` is then
        the one that it would be else), ``kind`` ("" where nothing tells) and ``label`` (path) where
        dataset.json or the layout names one that exists; ``missing_label`` where the layout names one that does not.

    Raises:
        InputError: listing every unusable scan; for a missing or empty folder; for too few subjects.
    """
    found = survey(dataset_dir, subject_key, **options)
    if dry_run:
        show_and_leave([found])
    return found.scans
