# SPDX-License-Identifier: Apache-2.0
"""What a model knows without learning any label: how its features cluster, how well it carries labels over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from ..evaluation import clustering_measures, collapse_measure, folded_percentage, label_dice, sample_features
from ..spatial import warp
from .cases import next_of_another


@torch.no_grad()
def cluster_measures(
    backbone: nn.Module, items: Sequence[Mapping[str, Any]], per_structure: int = 50, neighbours: int = 5, seed: int = 0
) -> dict[str, float]:
    """
    Args:
        backbone: image to (f^g, f^l).
        items: scans, see :class:`~scripts.probing.ProbeCases`.
        per_structure: voxels of each structure and scan.
        neighbours: k of the purity.
        seed: of the choice of voxels.

    Returns:
        ``neighbour_purity`` and ``silhouette`` of the local features, see
        :func:`~scripts.evaluation.clustering_measures`, ``embedding_collapse``, see
        :func:`~scripts.evaluation.collapse_measure`, and ``chance``, of the purity.
    """
    device = next(backbone.parameters()).device
    rng = np.random.default_rng(seed)
    sampled = [
        sample_features(backbone(item["image"][None].to(device))[1][0], item["label"][0], per_structure, rng)
        for item in items
    ]
    features, codes = [part for part, _ in sampled], [part for _, part in sampled]
    found = clustering_measures(features, codes, [item["subject"] for item in items], neighbours)
    chance = 1 / len(np.unique(np.concatenate(codes)))
    return {**found, **collapse_measure(features), "chance": chance}


@torch.no_grad()
def carry_over(network: nn.Module, items: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """
    Labels of one scan carried to the next one of another subject, and so on around: each is the labelled one once.

    Args:
        network: matches, see :class:`~scripts.networks.GVSL`.
        items: scans, see :class:`~scripts.probing.ProbeCases`.

    Returns:
        ``before``, ``after`` (Dice) and ``folded`` (percentage of voxels) by the name of each scan carried to.
    """
    device = next(network.parameters()).device
    found: dict[str, dict[str, float]] = {"before": {}, "after": {}, "folded": {}}
    for index, item in enumerate(items):
        source = next_of_another(items, index)
        field = network(item["image"][None].to(device), source["image"][None].to(device))["displacement"].cpu()
        label, reference = source["label"][None], item["label"][None]
        found["before"][item["name"]] = float(label_dice(label, reference))
        found["after"][item["name"]] = float(label_dice(warp(label, field, mode="nearest"), reference))
        found["folded"][item["name"]] = float(folded_percentage(field))
    return found
