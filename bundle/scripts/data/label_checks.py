# SPDX-License-Identifier: Apache-2.0
"""Whether a label map fits its scan, and which codes it holds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import InputError
from .geometry import other_grid
from .labels import ONE_VOLUME, as_codes
from .reading import LoadScan, scan_geometry
from .scan_checks import check_scan


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
    try:
        label = LoadScan(dtype=None)(case["label"])
    except Exception as error:  # damaged files raise anything
        return f"has a label that cannot be read ({type(error).__name__}): {case['label']}", []
    if len(label) > 1:
        return f"has a label that holds {len(label)} {ONE_VOLUME}: {case['label']}", []
    wrong = other_grid(scan_geometry(case["label"]), scan_geometry(case["image"]))
    if wrong:
        return f"and its label {case['label']} do not lie on one grid {wrong}", []
    try:
        values = np.unique(as_codes(np.asarray(label)))
    except ValueError as error:
        return f"has a label that {error}: {case['label']}", []
    strange = [value for value in values.tolist() if value not in codes]
    if strange:
        shown = ", ".join(map(str, strange[:5]))
        return f"has label values ({shown}) that the description does not name: {case['label']}", []
    if not any(values):
        return f"has an empty label (background alone): {case['label']}", []
    return None, [int(value) for value in values]


def check_label(image: str, label: str, codes: Sequence[int] | None = None) -> list[int]:
    """
    Refuse a label map that does not belong to its scan.

    Args:
        image: path of the scan.
        label: path of its label map.
        codes: the values it may have; None for any whole numbers of 0 or more.

    Returns:
        the values it has.

    Raises:
        InputError: for another shape or geometry, values that are no whole numbers, or unknown codes.
    """
    problem = check_scan(label, constant=True)
    if problem is not None:
        volumes = re.match(r"holds (\d+) volumes", problem)
        raise InputError(f"{label} " + (f"holds {volumes[1]} {ONE_VOLUME}" if volumes else problem))
    wrong = other_grid(scan_geometry(label), scan_geometry(image))
    if wrong:
        raise InputError(f"{label} has another geometry than its scan {image} {wrong}")
    values = LoadScan(dtype=None)(label)
    try:
        found = np.unique(as_codes(np.asarray(values)))
    except ValueError as error:
        raise InputError(f"{label} {error}") from error
    if found[0] < 0:
        raise InputError(f"{label} holds {found[0]}, which is no label: a label map has whole numbers of 0 or more")
    unknown = [int(value) for value in found if codes is not None and int(value) not in codes]
    if unknown:
        raise InputError(
            f"{label} holds the unknown label {unknown[0]}: the data set's description names {list(codes or [])}"
        )
    return [int(value) for value in found]


def tell_missing(structures: Mapping[str, Sequence[int]], shown: Sequence[Sequence[int]]) -> None:
    """
    Say in a line that label maps lack structures which others show: absent, or there and not drawn?

    Args:
        structures: the label codes of each by its name.
        shown: the codes of each label map.
    """
    maps = [set(codes) for codes in shown]
    counts = {name: sum(bool(found & set(codes)) for found in maps) for name, codes in structures.items()}
    missing = sorted((count, name) for name, count in counts.items() if 0 < count < len(maps))
    if missing:
        named = ", ".join(f"{name} in {count}" for count, name in missing[:3]) + (", ..." if len(missing) > 3 else "")
        print(
            f"label maps: of {len(maps)}, {named}; what a map does not show counts as not there: where it is there but "
            "was not drawn, pass --partial_labels True",
            flush=True,
        )
