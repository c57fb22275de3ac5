# SPDX-License-Identifier: Apache-2.0

"""Which labelled scans are matched: those of a part of the subjects, in pairs of different ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from scripts.data import LoadScand, find_scans, seen_scans, split_subjects
from scripts.errors import InputError
from scripts.evaluation import list_distinct_pairs, number_structures

PARTS = ("all", "training", "choosing", "held_back")
HELD_BACK = 0.2
"""The share of the subjects that ``train.json`` holds back with seed 0."""


@dataclass
class Scan:
    """
    A labelled scan in its own grid.

    Args:
        path: of its file.
        label_path: of its label map's file.
        image: ``(1, D, H, W)``, float32.
        label: ``(1, D, H, W)``, numbers of the structures from 1, 0 elsewhere.
        affine: ``(4, 4)``, voxels to millimetres RAS, float64.
    """

    path: str
    label_path: str
    image: torch.Tensor
    label: torch.Tensor
    affine: torch.Tensor


def labelled_scans(folder: Path, subject_key: Any, part: str) -> list[dict[str, Any]]:
    """
    The labelled scans of a part of a folder's subjects.

    Args:
        folder: with a dataset.json.
        subject_key: see :func:`~scripts.data.find_scans`.
        part: "all"; "held_back", the fifth that a training with seed 0 holds back; "training", the others; "choosing",
            of these the last fifth of the subjects in the order of the files' names, on which choices were made.

    Raises:
        InputError: for fewer than two subjects.
    """
    found = find_scans(str(folder), subject_key)
    held_back = {scan["subject"] for scan in split_subjects(found, HELD_BACK, seed=0)[1]} if part != "all" else set()
    scans = [scan for scan in found if "label" in scan]
    subjects = list(dict.fromkeys(scan["subject"] for scan in sorted(scans, key=lambda scan: scan["image"])))
    last = set(subjects[int((1 - HELD_BACK) * len(subjects)) :]) - held_back
    parts = {"all": set(subjects), "training": set(subjects) - held_back, "choosing": last, "held_back": held_back}
    chosen = parts[part] & set(subjects)
    if len(chosen) < 2:
        raise InputError(f"{folder} has {len(chosen)} subject(s) with label maps in the part '{part}': two are needed")
    return [scan for scan in scans if scan["subject"] in chosen]


def count_seen(scans: Sequence[dict[str, Any]], part: str, model: str | None) -> int:
    """
    How many scans are of subjects that a model was trained on, without their labels, which is said on the screen.

    Args:
        scans: of the part.
        part: see :func:`labelled_scans`.
        model: its weights; None for an untrained network.

    Raises:
        InputError: where scans of the part "held_back" are among them.
    """
    seen = seen_scans(scans, model)
    count = f"{model} was trained on {len(seen)} of the {len(scans)} scans"
    if seen and part == "held_back":
        raise InputError(
            f"{count} that seed 0 holds back, as {seen[0]['image']}: pass the --subject_key of its training; one "
            "with another seed or on other folders held back others: --subjects all measures on all of them"
        )
    if seen and part == "all":
        print(f"note: {count}, without labels: --subjects held_back takes those that seed 0 holds back", flush=True)
    return len(seen)


def list_pairs_of(scans: Sequence[Mapping[str, Any]], count: int, seed: int) -> list[tuple[int, int]]:
    """
    Pairs of different subjects, each of which is matched both ways.

    Args:
        scans: with ``subject``.
        count: pairs.
        seed: of the choice.

    Returns:
        indices of the two scans of each; fewer than ``count`` where there are no more.
    """
    return list(dict.fromkeys((min(pair), max(pair)) for pair in list_distinct_pairs(scans, count, seed)))


def read_scan_of(scan: Mapping[str, Any], groups: Sequence[Sequence[int]]) -> Scan:
    """
    Read a scan and its label map.

    Args:
        scan: with ``image`` and ``label``.
        groups: for each structure the label codes that make it up.
    """
    loaded = LoadScand(["image", "label"])({key: scan[key] for key in ("image", "label")})
    image, label = loaded["image"], loaded["label"]
    numbers = number_structures(torch.as_tensor(label), groups)
    affine = torch.as_tensor(image.affine).double()
    return Scan(str(scan["image"]), str(scan["label"]), torch.as_tensor(image).float(), numbers.float(), affine)
