# SPDX-License-Identifier: Apache-2.0
"""The labelled scans of a probe: prepared, numbered by structure, divided by subject so that each is held back once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..data.cache import cached_dataset, prepared
from ..errors import InputError, check_numbers
from ..evaluation import number_structures
from ..transforms import drawn_structures

FEWEST = 5
"""Subjects: with fewer no difference could be told from chance."""


@dataclass
class ProbeCases:
    """
    Args:
        names: of the structures, without the background.
        items: a dictionary a scan: ``image`` and ``label`` ``(1, D, H, W)`` (numbers of the structures), ``subject``,
            ``name``; with partial labels ``drawn``, see :func:`~scripts.finetuning.leave_open`.
        folds: the subjects that each fold holds back.
    """

    names: list[str]
    items: list[dict[str, Any]]
    folds: list[list[str]]

    def split(self, fold: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The scans that a fold learns from, and those that it holds back."""
        held = set(self.folds[fold])
        learned, tested = (
            [item for item in self.items if (item["subject"] in held) == wanted] for wanted in (False, True)
        )
        return learned, tested

    def by_subject(self, values: Mapping[str, float]) -> dict[str, float]:
        """Means of the subjects' scans, from a value by the name of each scan."""
        found: dict[str, list[float]] = {}
        for item in self.items:
            found.setdefault(item["subject"], []).append(values[item["name"]])
        return {subject: float(np.mean(own)) for subject, own in found.items()}


def read_cases(
    scans: Sequence[dict[str, Any]],
    transform: Callable,
    structures: tuple[list[str], list[list[int]]],
    folds: int = 5,
    most_scans: int | None = None,
    seed: int = 0,
    partial_labels: bool = False,
) -> ProbeCases:
    """
    Choose, prepare and divide labelled scans.

    Args:
        scans: dictionaries with ``image``, ``subject`` and, where there is one, ``label``.
        transform: prepares a scan.
        structures: names, and the label codes of each.
        folds: number of folds, at most one a subject.
        most_scans: scans to take at most, whole subjects drawn at random; None for all.
        seed: of the draw and of the folds.
        partial_labels: what a label map does not show was not drawn; in its crop, so that a structure beyond it counts
            as not drawn too.

    Raises:
        InputError: with fewer than five labelled subjects.
    """
    check_numbers({"folds": folds}, lowest=2, whole=True)
    labelled = [scan for scan in scans if "label" in scan]
    subjects = sorted({str(scan["subject"]) for scan in labelled})
    if len(subjects) < FEWEST:
        raise InputError(
            f"{len(labelled)} labelled scans of {len(subjects)} subjects: a probe needs {FEWEST} subjects or more with "
            "labels that dataset.json names"
        )
    order = [subjects[i] for i in np.random.default_rng(seed).permutation(len(subjects))]
    if most_scans is not None:
        check_numbers({"most_scans": most_scans}, lowest=FEWEST, whole=True)
        ends = np.cumsum([sum(str(scan["subject"]) == subject for scan in labelled) for subject in order])
        order = order[: max(FEWEST, int((ends <= most_scans).sum()))]
    chosen = [scan for subject in order for scan in labelled if str(scan["subject"]) == subject]
    if len(chosen) < len(labelled):
        print(
            f"{len(chosen)} of {len(labelled)} labelled scans are taken, drawn at random (--most_scans takes more)",
            flush=True,
        )
    ready = cached_dataset(chosen, transform)
    items: list[dict[str, Any]] = []
    for index, scan in enumerate(chosen):
        found = prepared(ready, index)
        label = number_structures(torch.as_tensor(found["label"]), structures[1]).float()
        items.append(
            {
                "image": torch.as_tensor(found["image"]).float(),
                "label": label,
                "subject": str(scan["subject"]),
                "name": str(scan["image"]),
            }
        )
        if partial_labels:
            items[-1]["drawn"] = drawn_structures(label, len(structures[0]))
    empty = next((item["name"] for item in items if not item["label"].any()), None)
    if empty:
        raise InputError(
            f"{empty}: no labelled structure lies in the crop: pass a larger --spatial_size, or a coarser --pixdim"
        )
    number = min(folds, len(order))
    return ProbeCases(structures[0], items, [order[fold::number] for fold in range(number)])


def next_of_another(items: Sequence[Mapping[str, Any]], index: int) -> Mapping[str, Any]:
    """The scan that follows in the list, or around its end, and is of another subject."""
    others = [*items[index + 1 :], *items[:index]]
    return next(other for other in others if other["subject"] != items[index]["subject"])
