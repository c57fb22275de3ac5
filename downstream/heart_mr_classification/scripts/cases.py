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

"""Cases of a data set: labelled ones, checked before any training starts, and images to predict on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import LoadImage

from .errors import InputError, check_flags, refuse_or_leave_out
from .reading import check_scan
from .scans import SubjectKey, find_scans

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
