# SPDX-License-Identifier: Apache-2.0
"""The structures of a labelled folder: their names, the codes that make them up, the groups they belong to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..data.dataset_json import label_names, read_json
from ..data.label_checks import check_label, tell_missing
from ..errors import InputError
from ..progress import progress


def number_structures(label: torch.Tensor, groups: Sequence[Sequence[int]]) -> torch.Tensor:
    """
    Args:
        label: label map of any shape.
        groups: for each structure the label codes that make it up.

    Returns:
        of the same shape: 1 for the first structure, 2 for the second ..., 0 elsewhere.
    """
    table = {code: number for number, codes in enumerate(groups, start=1) for code in codes}
    found, inverse = torch.unique(label.round().long(), return_inverse=True)
    numbers = torch.as_tensor([table.get(int(code), 0) for code in found], device=label.device)
    return numbers[inverse].to(label.dtype)


def _merging(content: Mapping[str, Any], entry: str) -> list[tuple[str, list[int]]]:
    return [(str(part["name"]), [int(code) for code in part["source_values"]]) for part in content[entry]]


def described_structures(
    dataset_dir: str,
    scans: Sequence[dict[str, Any]],
    merged: str | None = None,
    grouped: str = "coarse_labels",
    partial: bool | None = None,
) -> dict[str, list[Any]]:
    """
    The structures of a folder of which some or all scans have label maps; refuses label maps that do not fit their
    scans or the description.

    Args:
        dataset_dir: the folder, with a dataset.json.
        scans: its scans.
        merged: name of an entry of dataset.json that merges label codes: a list of ``{"name", "source_values"}``; None
            takes each code of its ``labels`` for a structure.
        grouped: name of such an entry that says, where it is there, which structures a table shows together.
        partial: whether what a label map does not show was not drawn, see :func:`common_structures`; where it is False
            and maps lack structures a line says so; None says nothing.

    Returns:
        ``names``, ``groups`` (the label codes of each structure) and ``families`` (the name of what it belongs to, ""
        for nothing), without the background; all empty where no scan has a label map.

    Raises:
        InputError: when dataset.json does not say which structures there are, or a label map does not fit.
    """
    labelled = [scan for scan in scans if "label" in scan]
    if not labelled:
        return {"names": [], "groups": [], "families": []}
    if len(labelled) < len(scans):
        count = len({scan["subject"] for scan in labelled})
        found = "Dice is of pairs of these" if count > 1 else "Dice needs two subjects with one"
        print(f"{len(labelled)} of {len(scans)} scans have a label map: {found}", flush=True)
    description = Path(dataset_dir) / "dataset.json"
    content = read_json(description)
    try:
        known = label_names(content)
        single = [(known[code], [code]) for code in sorted(known) if code]
        parts = single if merged is None else _merging(content, merged)
        families = _merging(content, grouped) if merged is None and grouped in content else []
        family = {code: name for name, codes in families for code in codes}
    except (AttributeError, KeyError, ValueError, TypeError) as error:
        wanted = "'labels' that map each code to a name" + (f" and '{merged}' that merges codes" if merged else "")
        raise InputError(f"{description} needs {wanted} ({type(error).__name__} {error})") from error
    shown = [
        check_label(scan["image"], scan["label"], [0, *known]) for scan in progress(labelled, "Checking label maps")
    ]
    if partial is False:
        tell_missing(dict(parts), shown)
    return {
        "names": [name for name, _ in parts],
        "groups": [codes for _, codes in parts],
        "families": [family.get(codes[0], "") for _, codes in parts],
    }


def common_structures(first: torch.Tensor, second: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Two label maps of which structures may not have been drawn, with those that both show alone.

    Args:
        first: label map, any shape.
        second: another one, any shape.
    """
    both = torch.as_tensor(sorted({*first.unique().tolist()} & {*second.unique().tolist()})).to(first)
    return tuple(torch.where(torch.isin(of, both.to(of)), of, torch.zeros_like(of)) for of in (first, second))  # type: ignore[return-value]


def shown_groups(structures: Mapping[str, Sequence[Any]]) -> tuple[list[str], list[list[int]]]:
    """
    Args:
        structures: see :func:`described_structures`.

    Returns:
        names and label codes of the families that the data set groups its structures in; of the structures where there
        are none.
    """
    if not any(structures["families"]):
        return list(structures["names"]), list(structures["groups"])
    merged: dict[str, list[int]] = {}
    for name, codes in zip(structures["families"], structures["groups"], strict=True):
        if name:
            merged.setdefault(name, []).extend(codes)
    return list(merged), list(merged.values())
