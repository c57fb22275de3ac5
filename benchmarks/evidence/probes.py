# SPDX-License-Identifier: Apache-2.0

"""What frozen features know: a linear probe of the anatomy, one of the whole scan, clusters."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from monai.losses import DiceCELoss
from scripts.evaluation import clustering_measures, label_dice, sample_features
from scripts.losses import redundancy
from scripts.networks import GVSL, UNetBackbone
from scripts.probing import cross_validated, pooled_features, scan_scores
from sklearn.neighbors import NearestNeighbors
from torch import nn

from .cohorts import Cohort, Reader
from .results import Value


def fit_probe(reader: Reader, cohort: Cohort, labelled: str, seed: int, steps: int, learning_rate: float) -> nn.Module:
    """
    A 1x1x1 convolution trained on frozen features (paper, section 4.1).

    The features are standardised while it learns, which the convolution could do itself and does at last: it only helps
    the optimiser.

    Args:
        reader: gives the features.
        cohort: the set.
        labelled: number of labelled subjects, or "all".
        seed: of the convolution's initialisation.
        steps: each of one scan, in turn.
        learning_rate: at the start; it falls to 0 by a cosine.

    Returns:
        the convolution of the features as they are.
    """
    torch.manual_seed(seed)
    scans = cohort.labelled(labelled)
    features = [reader(scan["image"][None]) for scan in scans]
    spread, mean = torch.std_mean(torch.stack([part.flatten(1) for part in features]), dim=(0, 2))
    spread = spread.clamp(min=1e-6)
    shape = (-1, *[1] * (features[0].dim() - 1))
    features = [(part - mean.reshape(shape)) / spread.reshape(shape) for part in features]
    probe = nn.Conv3d(len(mean), len(cohort.names) + 1, kernel_size=1)
    optimiser = torch.optim.Adam(probe.parameters(), learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    loss = DiceCELoss(to_onehot_y=True, softmax=True, include_background=False)
    for step in range(steps):
        index = step % len(scans)
        optimiser.zero_grad()
        loss(probe(features[index][None]), scans[index]["label"][None]).backward()
        optimiser.step()
        schedule.step()
    weight, bias = probe.state_dict().values()
    weight /= spread.reshape(shape)
    bias -= weight.flatten(1) @ mean
    return probe


def linear_probe(
    reader: Reader, cohort: Cohort, labelled: str, seed: int, steps: int, learning_rate: float
) -> list[Value]:
    """Dice of each held-back scan by :func:`fit_probe`."""
    probe = fit_probe(reader, cohort, labelled, seed, steps, learning_rate)
    values = []
    for scan in cohort.testing:
        with torch.no_grad():
            found = probe(reader(scan["image"][None])[None]).argmax(dim=1, keepdim=True)
        values.append(Value("dice", scan["name"], float(label_dice(found, scan["label"][None]))))
    return values


def gather(reader: Reader, cohort: Cohort, per_structure: int, seed: int) -> tuple[list[Any], list[Any], list[str]]:
    """Features, structures and subject of the held-back scans' random voxels."""
    rng = np.random.default_rng(seed)
    pairs = [
        sample_features(reader(scan["image"][None]), scan["label"][0], per_structure, rng) for scan in cohort.testing
    ]
    return [features for features, _ in pairs], [codes for _, codes in pairs], [s["subject"] for s in cohort.testing]


def clustering(reader: Reader, cohort: Cohort, seed: int, per_structure: int, neighbours: int) -> list[Value]:
    """
    Silhouette and between-subject purity of the features by structure, and how much of the subject is in them.

    Args:
        reader: gives the features.
        cohort: the set.
        seed: of the choice of voxels.
        per_structure: voxels of each structure and scan.
        neighbours: k of the nearest neighbours.
    """
    features, codes, subjects = gather(reader, cohort, per_structure, seed)
    measures = clustering_measures(features, codes, subjects, neighbours)
    owners = np.repeat(np.asarray(subjects), [len(part) for part in codes])
    measures["subject_leakage"] = subject_leakage(np.concatenate(features), np.concatenate(codes), owners, neighbours)
    return [Value(name, "", value) for name, value in measures.items()]


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


def subject_leakage(features: np.ndarray, codes: np.ndarray, owners: np.ndarray, k: int) -> float:
    """
    Share of the k nearest neighbours of the same structure that come from the own subject, divided by what chance
    gives: 1 where nothing tells the subjects apart.

    Args:
        features: ``(n, C)``.
        codes: structure of each, ``(n,)``.
        owners: subject of each, ``(n,)``.
        k: neighbours.
    """
    ratios = []
    for code in np.unique(codes):
        own, who = features[codes == code], owners[codes == code]
        if len(own) <= k:
            continue
        unit = own / np.maximum(np.linalg.norm(own, axis=1, keepdims=True), 1e-12)
        nearest = NearestNeighbors(n_neighbors=k).fit(unit).kneighbors(return_distance=False)
        same = (who[nearest] == who[:, None]).mean()
        chance = np.mean([(np.sum(who == one) - 1) / (len(who) - 1) for one in who])
        if chance > 0:
            ratios.append(same / chance)
    return float(np.mean(ratios))


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
