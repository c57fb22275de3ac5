# SPDX-License-Identifier: Apache-2.0

"""What frozen features know: a linear probe of the anatomy, one of the whole scan, clusters."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from scripts.losses import redundancy
from scripts.networks import GVSL, UNetBackbone
from scripts.probing import LinearProbe, cluster_measures, cross_validated, pooled_features, scan_scores

from .cohorts import Cohort
from .results import Value


def linear_probe(backbone: UNetBackbone, cohort: Cohort, labelled: str, seed: int, **settings: Any) -> list[Value]:
    """Dice of each held-back scan by a linear layer on frozen features, see :class:`~scripts.probing.LinearProbe`."""
    found = LinearProbe(**settings)(backbone, cohort.labelled(labelled), cohort.testing, len(cohort.names), seed)
    return [Value("dice", name, value) for name, value in found.items()]


def clustering(backbone: UNetBackbone, cohort: Cohort, seed: int, levels: int | None, **settings: Any) -> list[Value]:
    """Of held-back scans' features, see :func:`~scripts.probing.cluster_measures`; None for all levels."""
    levels = levels or len(backbone.features) - 1
    found = cluster_measures(backbone, cohort.testing, seed=seed, levels=levels, **settings)
    return [Value(name, "", value) for name, value in found.items() if name != "chance"]


def channels(network: GVSL, cohort: Cohort) -> list[Value]:
    """
    How much the channels of the local features, of the global ones, and of all levels' on the average repeat each other
    on each held-back scan, see :func:`scripts.losses.redundancy`.
    """
    values, backbone = [], cast("UNetBackbone", network.backbone)
    for scan in cohort.testing:
        with torch.no_grad():
            found = [float(redundancy(level)) for level in backbone.levels(scan["image"][None])]
        of_scan = {"global": found[0], "local": found[1], "mean": sum(found) / len(found)}
        values += [Value(f"{name}_redundancy", scan["name"], value) for name, value in of_scan.items()]
    return values


def classification(
    network: GVSL, cohort: Cohort, about: Mapping[str, str], folder: Path, seed: int, folds: int
) -> list[Value]:
    """
    Class of the subject by a logistic regression on the mean global features f^g, cross-validated by subject.

    Args:
        network: whose f^g are read.
        cohort: the set.
        about: ``table`` (a CSV in the folder), ``key`` (its column that the file names hold), ``label`` (its column).
        folder: of the set.
        seed: of the folds.
        folds: of the cross-validation.
    """
    with (folder / about["table"]).open(newline="", encoding="utf-8") as file:
        table = {row[about["key"]]: row[about["label"]] for row in csv.DictReader(file)}
    scans = [*cohort.training, *cohort.testing]
    owners = [max((key for key in table if key in scan["name"]), key=len) for scan in scans]
    labels = np.array([table[owner] for owner in owners])
    pooled = np.stack([pooled_features(network.backbone, scan["image"]) for scan in scans])
    chances = cross_validated(pooled, labels, np.array(owners), "classification", folds, seed)
    scores = scan_scores(chances, labels, "classification")
    return [Value("auc", "", scores["auroc"]), Value("accuracy", "", scores["accuracy"])]
