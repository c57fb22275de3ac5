# SPDX-License-Identifier: Apache-2.0
"""Cases of a data set: labelled ones, checked before any training starts, and images to predict on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..data.dry_run import Survey, show_and_leave
from ..data.find_scans import SubjectKey, find_scans, survey
from ..data.label_checks import check_case, tell_missing
from ..data.result_names import record_results, result_names
from ..errors import check_flags, refuse_or_leave_out


def labelled_cases(
    dataset_dir: str,
    classes: Sequence[Mapping[str, Any]],
    ignored_codes: Sequence[int] = (),
    subject_key: SubjectKey = None,
    skip_bad: bool = False,
    workers: int = 2,
    layout: Mapping[str, Any] | None = None,
    dry_run: bool = False,
    kind: str | None = None,
    channels: int = 1,
    partial_labels: bool = False,
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
        dry_run: list the scans and what was left out, and end the program.
        kind: of scan to take, see :func:`~scripts.data.find_scans`.
        channels: of each image, see :func:`~scripts.data.find_scans`.
        partial_labels: what a label map does not show was not drawn; where it is False and maps lack structures a line
            says so.

    Returns:
        dictionaries with ``image``, ``label``, ``subject`` and ``classes`` (numbers, from 1, of the structures in it).

    Raises:
        InputError: listing every unusable case.
    """
    check_flags({"skip_bad": skip_bad, "partial_labels": partial_labels})
    cases = find_scans(
        dataset_dir,
        subject_key,
        dry_run,
        skip_bad=skip_bad,
        workers=workers,
        min_subjects=1,
        layout=layout,
        kind=kind,
        labelled=True,
        has_options=False,
        channels=channels,
    )
    labelled = [case for case in cases if "label" in case or "missing_label" in case]
    if 0 < len(labelled) < len(cases):
        without = next(case["image"] for case in cases if case not in labelled)
        print(f"left out {len(cases) - len(labelled)} of {len(cases)} scans without label, as {without}", flush=True)
        cases = labelled
    codes = [0, *ignored_codes, *(code for entry in classes for code in entry["codes"])]
    with ThreadPoolExecutor(workers) as pool:
        found = list(pool.map(lambda case: check_case(case, codes), cases))
    problems = [f"{case['image']} {what}" for case, (what, _) in zip(cases, found, strict=True) if what]
    refuse_or_leave_out(problems, len(cases), "cases", skip_bad)
    if not partial_labels:
        shown = [present for what, present in found if not what]
        tell_missing({str(entry["name"]): entry["codes"] for entry in classes}, shown)
    return [
        {**case, "classes": [n for n, entry in enumerate(classes, 1) if set(entry["codes"]) & set(present)]}
        for case, (what, present) in zip(cases, found, strict=True)
        if not what
    ]


def images_to_predict(
    dataset_dir: str,
    image: str | Sequence[str] | None = None,
    layout: Mapping[str, Any] | None = None,
    output_dir: str | None = None,
    dry_run: bool = False,
    kind: str | None = None,
    channels: int = 1,
    skip_bad: bool = False,
) -> list[dict[str, str]]:
    """
    What to predict on.

    Args:
        dataset_dir: folder of scans, used where no image is named.
        image: path of a scan, or several.
        layout: how the folder lies on disk, see :mod:`scripts.data.folder_layouts`; its images without label are
            predicted too.
        output_dir: where a file is written for each; None for no such files.
        dry_run: list the scans and what was left out, and end the program.
        kind: of scan to take, see :func:`~scripts.data.find_scans`.
        channels: of each image, see :func:`~scripts.data.find_scans`.
        skip_bad: leave scans that cannot be used out instead of refusing.

    Returns:
        dictionaries with ``image``.

    Raises:
        InputError: for a scan that cannot be used; where a result would be overwritten, see
            :func:`~scripts.data.record_results`.
    """
    check_flags({"skip_bad": skip_bad})
    options: dict[str, Any] = {"skip_bad": skip_bad, "channels": channels}
    if not image:
        found = survey(dataset_dir, min_subjects=1, layout=layout, kind=kind, has_options=False, **options)
    else:
        found = Survey().usable([image] if isinstance(image, str) else image, **options)
    paths = [scan["image"] for scan in found.scans]
    results = {name: [path] for path, name in result_names(paths).items()}
    if dry_run:
        show_and_leave([found], results)
    if output_dir is not None:
        record_results(output_dir, results)
    return [{"image": path} for path in paths]
