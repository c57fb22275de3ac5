# Copyright (c) GVSL bundle contributors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Labelled cases of a data set: checked before any training starts, split by subject, thinned to few labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import LoadImage

from .errors import InputError, check_flags, check_numbers, refuse_or_leave_out
from .scans import SubjectKey, check_scan, find_scans

GEOMETRY_TOLERANCE = 1e-2
"""Millimetres by which the affine matrices of an image and its label may differ."""


def check_case(case: Mapping[str, Any], codes: Sequence[int]) -> tuple[str | None, list[int]]:
    """
    Compare a label map with its image and with the description of the data set.

    Args:
        case: paths ``image`` and ``label``.
        codes: label codes that may occur, background included.

    Returns:
        what is wrong (None if nothing is), and the codes found.
    """
    if "label" not in case:
        return "has no label file" + (f": {case['missing_label']} is missing" if "missing_label" in case else ""), []
    load = LoadImage(image_only=True, ensure_channel_first=True)
    try:
        image, label = load(case["image"]), load(case["label"])
    except Exception as error:  # damaged files raise anything
        return f"has a label that cannot be read ({type(error).__name__}): {case['label']}", []
    if image.shape[1:] != label.shape[1:]:
        return f"is {tuple(image.shape[1:])} but its label {case['label']} is {tuple(label.shape[1:])}", []
    if not torch.allclose(image.affine, label.affine, rtol=0, atol=GEOMETRY_TOLERANCE):
        return f"and its label {case['label']} lie in different places (affine matrices differ)", []
    values = np.unique(np.asarray(label))
    strange = [value for value in values.tolist() if value not in codes]
    if strange:
        shown = ", ".join(f"{value:g}" for value in strange[:5])
        return f"has label values ({shown}) that the description does not name: {case['label']}", []
    if not any(values):
        return f"has an empty label (background alone): {case['label']}", []
    return None, [int(value) for value in values]


def labelled_cases(
    dataset_dir: str,
    classes: Sequence[Mapping[str, Any]],
    ignored_codes: Sequence[int] = (),
    subject_key: SubjectKey = None,
    skip_bad: bool = False,
    workers: int = 2,
    layout: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """
    The cases of a data set whose image and label can be used.

    Args:
        dataset_dir: folder with a ``dataset.json`` (Medical Segmentation Decathlon), or of the layout.
        classes: one dictionary a structure: ``name`` and the ``codes`` that make it up in the label files.
        ignored_codes: codes that count as background.
        subject_key: what tells subjects apart, see :func:`~scripts.scans.find_scans`.
        skip_bad: leave unusable cases out instead of refusing.
        workers: threads that read files.
        layout: how the data set lies on disk, see :mod:`scripts.layouts`; images without label by design are left out.

    Returns:
        dictionaries with ``image``, ``label``, ``subject`` and ``classes`` (numbers, from 1, of the structures in it).

    Raises:
        InputError: listing every unusable case.
    """
    check_flags({"skip_bad": skip_bad})
    cases = find_scans(
        dataset_dir, subject_key, skip_bad, workers=workers, min_subjects=1, layout=layout, labelled=True
    )
    codes = [0, *ignored_codes, *(code for entry in classes for code in entry["codes"])]
    with ThreadPoolExecutor(workers) as pool:
        found = list(pool.map(lambda case: check_case(case, codes), cases))
    problems = [f"{case['image']} {what}" for case, (what, _) in zip(cases, found, strict=True) if what]
    refuse_or_leave_out(problems, len(cases), "cases", skip_bad)
    return [
        {**case, "classes": [n for n, entry in enumerate(classes, 1) if set(entry["codes"]) & set(present)]}
        for case, (what, present) in zip(cases, found, strict=True)
        if not what
    ]


def _divided(
    strata: Mapping[str, set[str]], test_fraction: float, validation_fraction: float, folds: int, fold: int, seed: int
) -> tuple[list[str], list[str], list[str]]:
    """Subjects to train on (the first ones from every stratum, the further ones in proportion), validate and test."""
    generator = np.random.default_rng(seed)
    test: list[str] = []
    validation: list[str] = []
    rest: dict[str, list[str]] = {}
    for kind, subjects in strata.items():
        order = [sorted(subjects)[i] for i in generator.permutation(len(subjects))]
        held, share = (max(1, round(part * len(order))) if part else 0 for part in (test_fraction, validation_fraction))
        if held + share >= len(order):
            raise InputError(f"{len(order)} subjects{kind} are too few for training, validation and test parts")
        test += order[:held]
        validation += order[held : held + share]
        rest[kind] = order[held:]
    if folds:
        validation = [subject for group in rest.values() for subject in group][fold::folds]
    kept = [[subject for subject in group if subject not in validation] for group in rest.values()]
    placed = [(place / len(group), subject) for group in kept for place, subject in enumerate(group)]
    train = [subject for _, subject in sorted(placed, key=lambda item: item[0])]
    if not train or not validation:
        raise InputError(f"{len(train) + len(validation)} subjects are too few for {folds} folds")
    return train, validation, test


def split_cases(
    cases: Sequence[dict[str, Any]],
    class_names: Sequence[str],
    validation_fraction: float = 0.15,
    test_fraction: float = 0.15,
    num_labelled: int | None = None,
    label_fraction: float = 1.0,
    folds: int = 0,
    fold: int = 0,
    seed: int = 0,
    stratify: bool = False,
) -> dict[str, list[dict[str, Any]]]:
    """
    Split by subject; the same arguments give the same split, and fewer labels are a subset of more.

    The test part depends on the seed and its fraction alone, so that every fold and every number of labels is measured
    on the same subjects.

    Args:
        cases: dictionaries with ``subject`` and ``classes`` (numbers, from 1, of the structures or classes in it).
        class_names: names of the structures or classes.
        validation_fraction: share of all subjects for choosing the best model (without folds).
        test_fraction: share of all subjects never trained on, 0 for none.
        num_labelled: subjects to train on; None takes ``label_fraction`` of them.
        label_fraction: share of the training subjects to train on.
        folds: number of folds; 0 splits once.
        fold: the fold, from 0, that validates.
        seed: of the split.
        stratify: split each class by itself, for cases that show one class each; the first subjects to train on are
            one of each class, the further ones keep their proportions.

    Returns:
        ``train``, ``validation`` and ``test`` cases.

    Raises:
        InputError: for too few subjects (of a class), impossible shares, or a structure or class without example in
            the training part.
    """
    check_numbers({"validation_fraction": validation_fraction, "test_fraction": test_fraction})
    check_numbers({"label_fraction": label_fraction})
    check_numbers({"folds": folds, "fold": fold, "seed": seed}, whole=True)
    if validation_fraction + test_fraction >= 1 or not validation_fraction:
        raise InputError("validation_fraction must be above 0, and with test_fraction below 1")
    if not 0 < label_fraction <= 1:
        raise InputError(f"label_fraction must lie above 0 and not above 1, not {label_fraction}")
    if folds == 1 or (folds and fold >= folds):
        raise InputError(f"fold {fold} of {folds} does not exist: folds is 0 or at least 2, fold counts from 0")
    strata: dict[str, set[str]] = {}
    for case in sorted(cases, key=lambda case: case["classes"][:1] if stratify else []):
        kind = f" of class {class_names[case['classes'][0] - 1]}" if stratify else ""
        strata.setdefault(kind, set()).add(case["subject"])
    train, validation, test = _divided(strata, test_fraction, 0 if folds else validation_fraction, folds, fold, seed)
    if num_labelled is not None:
        check_numbers({"num_labelled": num_labelled}, lowest=1, whole=True)
        if num_labelled > len(train):
            raise InputError(f"num_labelled is {num_labelled}, but only {len(train)} subjects are there to train on")
    train = train[: num_labelled or max(1, round(label_fraction * len(train)))]
    chosen = {"train": set(train), "validation": set(validation), "test": set(test)}
    parts = {name: [case for case in cases if case["subject"] in group] for name, group in chosen.items()}
    present = {number for case in parts["train"] for number in case["classes"]}
    if stratify and len({case["classes"][0] for case in parts["validation"]}) < 2:
        raise InputError(
            f"the validation part shows one class alone, an AUC needs two: pass fewer --folds than {folds}"
        )
    missing = [name for number, name in enumerate(class_names, 1) if number not in present]
    if missing:
        raise InputError(
            f"no case of the training part shows {', '.join(missing)}: train on more subjects (num_labelled, "
            "label_fraction) or pass another --seed"
        )
    print(", ".join(f"{len(part)} {name}" for name, part in parts.items()) + " cases", flush=True)
    return parts


def chosen_part(split: Mapping[str, list[dict[str, Any]]], part: str) -> list[dict[str, Any]]:
    """
    One part of :func:`split_cases`.

    Raises:
        InputError: for a part that does not exist or has no case.
    """
    if not split.get(part):
        there = ", ".join(name for name, cases in split.items() if cases)
        raise InputError(f"part '{part}' has no case: the parts with cases are {there}")
    return split[part]


def images_to_predict(
    dataset_dir: str, image: str | Sequence[str] | None = None, layout: Mapping[str, Any] | None = None
) -> list[dict[str, str]]:
    """
    What to predict on.

    Args:
        dataset_dir: folder of scans, used where no image is named.
        image: path of a scan, or several.
        layout: how the folder lies on disk, see :mod:`scripts.layouts`; its images without label are predicted too.

    Returns:
        dictionaries with ``image``.
    """
    if not image:
        return [{"image": scan["image"]} for scan in find_scans(dataset_dir, min_subjects=1, layout=layout)]
    paths = [image] if isinstance(image, str) else list(image)
    for path in paths:
        problem = check_scan(path) if Path(path).exists() else "does not exist: pass --image <scan>"
        if problem:
            raise InputError(f"{path} {problem}")
    return [{"image": path} for path in paths]
