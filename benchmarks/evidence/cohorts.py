# SPDX-License-Identifier: Apache-2.0

"""Prepared scans of a set and the network of an arm, from the bundle's own configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from monai.bundle import ConfigParser
from monai.utils import set_determinism
from scripts.data import cached_dataset
from scripts.evaluation import described_structures, number_structures
from scripts.networks import GVSL
from scripts.training import ModelLoader
from scripts.transforms import drawn_structures

from .plan import BUNDLE, overlays_of


@dataclass
class Cohort:
    """
    The scans of one set, split by subject.

    Args:
        names: names of the structures, without the background.
        training: prepared scans that may be learned from: ``image`` and ``label`` ``(1, D, H, W)`` (structure numbers),
            ``subject``, ``name``, with partial labels ``drawn``; in a random order of the subjects, so that fewer are a
            subset of more.
        testing: those of the held-back subjects.
        spacing: voxel size in millimetres.
    """

    names: list[str]
    training: list[dict[str, Any]]
    testing: list[dict[str, Any]]
    spacing: list[float]

    def labelled(self, count: str) -> list[dict[str, Any]]:
        """The training scans of the first ``count`` subjects; "all" for all."""
        subjects = list(dict.fromkeys(scan["subject"] for scan in self.training))
        chosen = subjects if count == "all" else subjects[: int(count)]
        return [scan for scan in self.training if scan["subject"] in chosen]

    def without_held_back(self, count: int, most: int | None = None) -> Cohort:
        """
        The training scans alone: those of the first ``count`` subjects to learn from, the others to be measured, the
        last ``most`` of them alone (and the rest of them unlabelled, to learn from too).
        """
        learned = {scan["name"] for scan in self.labelled(str(count))}
        others = [scan["name"] for scan in self.training if scan["name"] not in learned]
        measured = set(others if most is None else others[-most:])
        training, testing = ([s for s in self.training if (s["name"] in measured) == side] for side in (False, True))
        return Cohort(self.names, training, testing, self.spacing)


def configuration(plan: Mapping[str, Any], data: str, arm: str, seed: str) -> ConfigParser:
    """``evaluate.json`` over ``train.json`` and the arm's overlays, with the settings of the set and of the network."""
    parser, configs = ConfigParser(), BUNDLE / "configs"
    files = (configs / "train.json", *overlays_of(plan, arm), configs / "evaluate.json")
    parser.read_config([str(file) for file in files])
    settings = {**plan["network"], **plan["sets"][data]["shared"]}
    parser.update({"seed": int(seed), "merged_labels": plan["sets"][data]["merged_labels"], **settings})
    return parser


def read_cohort(plan: Mapping[str, Any], data: str, seed: str, folder: Path, cache: Path) -> Cohort:
    """
    Args:
        plan: see :func:`~evidence.plan.read_plan`.
        data: name of the set.
        seed: of the split, the same as in the pre-training.
        folder: of the set.
        cache: folder for prepared scans.
    """
    parser = configuration(plan, data, next(iter(plan["arms"])), seed)
    parser.update({"dataset_dir": str(folder)})
    halves = parser.get_parsed_content("split")
    structures = described_structures(str(folder), [*halves[0], *halves[1]], plan["sets"][data]["merged_labels"])
    transform = parser.get_parsed_content("validate#preprocessing")
    parts = []
    for scans in halves:
        prepared = cached_dataset(scans, transform, str(cache))
        parts.append(
            [
                {
                    "image": prepared[i]["image"],
                    "label": number_structures(prepared[i]["label"], structures["groups"]),
                    "subject": str(scan["subject"]),
                    "name": Path(scan["image"]).name,
                }
                for i, scan in enumerate(scans)
            ]
        )
    for scan in [*parts[0], *parts[1]] if plan["sets"][data].get("partial_labels") else []:
        scan["drawn"] = drawn_structures(scan["label"], len(structures["names"]))
    subjects = sorted({scan["subject"] for scan in parts[0]})
    order = np.random.default_rng([int(seed), 1]).permutation(len(subjects))
    place = {subjects[i]: rank for rank, i in enumerate(order)}
    parts[0].sort(key=lambda scan: place[scan["subject"]])
    return Cohort(structures["names"], parts[0], parts[1], list(parser.get_parsed_content("pixdim")))


def make_network(plan: Mapping[str, Any], data: str, arm: str, seed: str, weights: Path | None) -> GVSL:
    """
    The arm's network, initialised by the seed, then filled.

    Args:
        plan: see :func:`~evidence.plan.read_plan`.
        data: the set it is used on; its voxel size belongs to the affine head.
        arm: name of the arm.
        seed: of the initialisation.
        weights: ``model.pt`` or ``checkpoint.pt``; None for random weights.
    """
    set_determinism(int(seed))
    network = configuration(plan, data, arm, seed).get_parsed_content("network_def")
    if weights:
        ModelLoader(network, str(weights))()
    return network.eval()
