# SPDX-License-Identifier: Apache-2.0
"""Cases of a data set: labelled ones, checked before any training starts, and images to predict on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..data.find_scans import SubjectKey, find_scans
from ..data.labels import check_case
from ..data.scan_checks import inspect_scan, scan_exists, tell_decisions
from ..errors import InputError, check_flags, refuse_or_leave_out


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
        subject_key: what tells subjects apart, see :func:`~scripts.data.find_scans`.
        skip_bad: leave unusable cases out instead of refusing.
        workers: threads that read files.
        layout: how the data set lies on disk, see :mod:`scripts.data.folder_layouts`; images without label by
            design are left out.

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
        layout: how the folder lies on disk, see :mod:`scripts.data.folder_layouts`; its images without label are
            predicted too.

    Returns:
        dictionaries with ``image``.
    """
    if not image:
        return [{"image": scan["image"]} for scan in find_scans(dataset_dir, min_subjects=1, layout=layout)]
    paths = [image] if isinstance(image, str) else list(image)
    checks = {path: inspect_scan(path) for path in paths}
    for path, check in checks.items():
        if check.problem:
            raise InputError(f"{path} {check.problem if scan_exists(path) else 'does not exist: pass --image <scan>'}")
    tell_decisions(checks)
    return [{"image": path} for path in paths]
