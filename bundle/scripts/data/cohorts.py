# SPDX-License-Identifier: Apache-2.0
"""Cohorts: folders of scans, one for each part of the body, that pairs never mix; subjects held back."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, check_numbers
from .copies import without_copies
from .dry_run import show_and_leave
from .find_scans import SubjectKey, survey


def _for_each(option: str, value: Any, folders: Sequence[str]) -> list[Any]:
    """The option's value for each folder: one for all, or a list of one each."""
    values = list(value) if isinstance(value, (list, tuple)) else [value] * len(folders)
    if len(values) != len(folders):
        raise InputError(f"{option} has {len(values)} values for the {len(folders)} folder(s) of dataset_dir")
    return values


def find_cohorts(
    dataset_dir: str | Sequence[str],
    subject_key: SubjectKey | Sequence[SubjectKey] = None,
    zoom: float | Sequence[float] = 1.0,
    zoom_out: float | Sequence[float] = 1.0,
    intensity: str | Sequence[str] | None = None,
    dry_run: bool = False,
    **options: Any,
) -> list[dict[str, Any]]:
    """
    The usable scans of a folder, or of several whose scans show different parts of the body.

    Args:
        dataset_dir: the folder, or a list of folders.
        subject_key: see :func:`~scripts.data.find_scans`; one for all folders, or a list of one each.
        zoom: how many times finer than the grid's spacing the voxels of a folder's scans are; one for all folders, or a
            list of one each. So that heads at 4 mm and hippocampi at 1 mm fill the same grid: ``[1, 4]``.
        zoom_out: largest factor by which the voxels are enlarged again, drawn for each pair (see
            :class:`~scripts.transforms.RandMatchingViewsd`); one for all folders, or a list of one each.
        intensity: see :func:`~scripts.transforms.scale_intensity`; one for all folders, or a list of one each; None to
            leave it to the preprocessing.
        dry_run: list what would be used and what was left out, and end the program.
        options: of :func:`~scripts.data.find_scans`.

    Returns:
        dictionaries with ``image``, ``subject``, possibly ``label``, and ``cohort`` (its folder), ``zoom`` and
        ``zoom_out``, and ``intensity`` where it is given.

    Raises:
        InputError: for a folder named twice; for options that do not fit; see :func:`~scripts.data.find_scans`.
    """
    folders = [str(folder) for folder in (dataset_dir if isinstance(dataset_dir, list | tuple) else [dataset_dir])]
    if not folders:
        raise InputError("dataset_dir is an empty list: pass --dataset_dir <folder of scans>")
    resolved = [Path(folder).resolve() for folder in folders]
    for number, folder in enumerate(resolved):
        if folder in resolved[:number]:
            raise InputError(f"dataset_dir names {folders[number]} twice")
    missing = next((folder for folder in folders if not Path(folder).is_dir()), None)
    if len(folders) > 1 and missing:
        raise InputError(
            f"dataset_dir {missing}, one of {len(folders)}, does not exist or is not a folder: pass --dataset_dir with "
            "a list of folders, or --data_dir <folder that holds them> where the configuration has one"
        )
    keys, zooms = _for_each("subject_key", subject_key, folders), _for_each("zoom", zoom, folders)
    factors, intensities = _for_each("zoom_out", zoom_out, folders), _for_each("intensity", intensity, folders)
    for factor, largest in zip(zooms, factors, strict=True):
        check_numbers({"zoom": factor}, lowest=0.01)
        check_numbers({"zoom_out": largest}, lowest=1)
    surveys = without_copies([survey(folder, key, **options) for folder, key in zip(folders, keys, strict=True)])
    if dry_run:
        show_and_leave(surveys)
    return [
        {**scan, "cohort": folder, "zoom": float(factor), "zoom_out": float(largest)}
        | ({} if kind is None else {"intensity": kind})
        for folder, found, factor, largest, kind in zip(folders, surveys, zooms, factors, intensities, strict=True)
        for scan in found.scans
    ]


def by_cohort(scans: Sequence[Mapping[str, Any]]) -> dict[Hashable, list[int]]:
    """Indices of the scans of each cohort; scans that name none are one cohort."""
    found: dict[Hashable, list[int]] = {}
    for index, scan in enumerate(scans):
        found.setdefault(scan.get("cohort"), []).append(index)
    return found


def split_subjects(
    scans: Sequence[dict[str, Any]], validation_fraction: float, seed: int = 0
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """
    Hold subjects of each cohort back for measuring; two at least, whose scans can be matched.

    Args:
        scans: dictionaries with ``subject`` and possibly ``cohort``.
        validation_fraction: share of the subjects to hold back.
        seed: of the choice.

    Returns:
        scans for training, scans held back. Of a cohort with fewer than four subjects both are all its scans, since
        each side needs two.
    """
    if not 0 < validation_fraction < 1:
        raise InputError(f"validation_fraction must lie between 0 and 1, not {validation_fraction}")
    training, held_back = [], []
    for cohort, members in by_cohort(scans).items():
        own = [scans[index] for index in members]
        subjects = sorted({scan["subject"] for scan in own})
        if len(subjects) < 4:
            where = "" if cohort is None else f" in {cohort}"
            print(
                f"{len(subjects)} subjects{where} are too few to hold any back: matching is measured on the training "
                "scans",
                flush=True,
            )
            training += own
            held_back += own
            continue
        count = min(max(2, round(validation_fraction * len(subjects))), len(subjects) - 2)
        held = {subjects[i] for i in np.random.default_rng(seed).permutation(len(subjects))[:count]}
        training += [scan for scan in own if scan["subject"] not in held]
        held_back += [scan for scan in own if scan["subject"] in held]
    return training, held_back
