# SPDX-License-Identifier: Apache-2.0
"""Networks, cases and scores of the child bundles."""

from .atlas_reader import AtlasReader
from .classification_cases import (
    NO_VALUE,
    as_value,
    classified_cases,
    numbers_of_values,
    read_table,
    sampling_weights,
)
from .classification_metrics import MeanAUC, by_subject, class_aucs, mean_auc, scores
from .classification_scores import ClassificationScores, Predictions, write_rows
from .linear_layer import FitLastLayer, fit_head, fit_linear_layer
from .networks import (
    Backbone,
    ClassificationNetwork,
    SegmentationNetwork,
    TaskNetwork,
    last_levels,
    levels_of_model,
    load_pretrained,
)
from .partial_labels import LeaveOpenInferer, leave_open, score_drawn
from .segmentation_cases import images_to_predict, labelled_cases
from .segmentation_scores import SegmentationScores, case_scores

__all__ = [
    "NO_VALUE",
    "AtlasReader",
    "Backbone",
    "ClassificationNetwork",
    "ClassificationScores",
    "FitLastLayer",
    "LeaveOpenInferer",
    "MeanAUC",
    "Predictions",
    "SegmentationNetwork",
    "SegmentationScores",
    "TaskNetwork",
    "as_value",
    "by_subject",
    "case_scores",
    "class_aucs",
    "classified_cases",
    "fit_head",
    "fit_linear_layer",
    "images_to_predict",
    "labelled_cases",
    "last_levels",
    "leave_open",
    "levels_of_model",
    "load_pretrained",
    "mean_auc",
    "numbers_of_values",
    "read_table",
    "sampling_weights",
    "score_drawn",
    "scores",
    "write_rows",
]
