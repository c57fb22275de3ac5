# SPDX-License-Identifier: Apache-2.0
"""What a model knows without learning any label: how its features cluster, how well it carries labels over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from ..evaluation import (
    clustering_measures,
    collapse_measure,
    common_structures,
    folded_percentage,
    label_dice,
    sample_features,
)
from ..finetuning import SegmentationNetwork
from ..spatial import warp_labels
from .cases import next_of_another


@torch.no_grad()
def sampled_features(
    backbone: nn.Module, items: Sequence[Mapping[str, Any]], per_structure: int = 50, seed: int = 0, levels: int = 1
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """
    Features and structures of random voxels of each scan.

    Args:
        backbone: image to (f^g, f^l).
        items: scans, see :class:`~scripts.probing.ProbeCases`.
        per_structure: voxels of each structure and scan.
        seed: of the choice of voxels.
        levels: of the decoder, side by side, from full size down; 1 for f^l alone.
    """
    device = next(backbone.parameters()).device
    rng = np.random.default_rng(seed)

    def read(image: torch.Tensor) -> torch.Tensor:
        image = image[None].to(device)
        if levels == 1:
            return backbone(image)[1][0]
        return SegmentationNetwork(backbone, 2, levels=levels).features(image)[0]  # type: ignore[arg-type]

    pairs = [sample_features(read(item["image"]), item["label"][0], per_structure, rng) for item in items]
    return [part for part, _ in pairs], [part for _, part in pairs]


def cluster_measures(
    backbone: nn.Module,
    items: Sequence[Mapping[str, Any]],
    per_structure: int = 50,
    neighbours: int = 5,
    seed: int = 0,
    levels: int = 1,
) -> dict[str, float]:
    """
    Args:
        backbone: image to (f^g, f^l).
        items: scans, see :class:`~scripts.probing.ProbeCases`.
        per_structure: voxels of each structure and scan.
        neighbours: k of the purity.
        seed: of the choice of voxels.
        levels: of the decoder, see :func:`sampled_features`.

    Returns:
        ``neighbour_purity`` and ``silhouette`` of the features, see
        :func:`~scripts.evaluation.clustering_measures`, ``embedding_collapse``, see
        :func:`~scripts.evaluation.collapse_measure`, and ``chance``, of the purity.
    """
    features, codes = sampled_features(backbone, items, per_structure, seed, levels)
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
        if "drawn" in item:
            label, reference = common_structures(label, reference)
        found["before"][item["name"]] = float(label_dice(label, reference))
        found["after"][item["name"]] = float(label_dice(warp_labels(label, field), reference))
        found["folded"][item["name"]] = float(folded_percentage(field))
    return found
