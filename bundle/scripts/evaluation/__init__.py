# SPDX-License-Identifier: Apache-2.0
"""How well a model matches: metrics, structures, feature clusters, the report."""

from .clustering import (
    clustering_measures,
    collapse_measure,
    embedding,
    neighbour_purity,
    principal_colours,
    sample_features,
)
from .detailed_quality import DetailedQuality, structure_quality
from .distinct_pairs import DistinctPairs, list_distinct_pairs
from .evaluation import Evaluation
from .metrics import (
    MatchingQuality,
    PairAverage,
    folded_percentage,
    label_dice,
    loss_averages,
    matching_metrics,
    pair_averages,
)
from .structures import common_structures, described_structures, number_structures, shown_groups
from .summary import gains, mean_measures, structure_rows, without_nan

__all__ = [
    "DetailedQuality",
    "DistinctPairs",
    "Evaluation",
    "MatchingQuality",
    "PairAverage",
    "clustering_measures",
    "collapse_measure",
    "common_structures",
    "described_structures",
    "embedding",
    "folded_percentage",
    "gains",
    "label_dice",
    "list_distinct_pairs",
    "loss_averages",
    "matching_metrics",
    "mean_measures",
    "neighbour_purity",
    "number_structures",
    "pair_averages",
    "principal_colours",
    "sample_features",
    "shown_groups",
    "structure_quality",
    "structure_rows",
    "without_nan",
]
