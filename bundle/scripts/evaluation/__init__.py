# SPDX-License-Identifier: Apache-2.0
"""How well a model matches: metrics, structures, feature clusters, the report."""

from .clustering import clustering_measures, embedding, neighbour_purity, principal_colours, sample_features
from .evaluation import Evaluation, without_nan
from .metrics import (
    MatchingQuality,
    PairAverage,
    folded_percentage,
    label_dice,
    loss_averages,
    matching_metrics,
    pair_averages,
)
from .structures import DetailedQuality, described_structures, number_structures

__all__ = [
    "DetailedQuality",
    "Evaluation",
    "MatchingQuality",
    "PairAverage",
    "clustering_measures",
    "described_structures",
    "embedding",
    "folded_percentage",
    "label_dice",
    "loss_averages",
    "matching_metrics",
    "neighbour_purity",
    "number_structures",
    "pair_averages",
    "principal_colours",
    "sample_features",
    "without_nan",
]
