# SPDX-License-Identifier: Apache-2.0
"""Measures of a classification: areas under the ROC curve, accuracy and confusion, by scan and by subject."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.metrics import ROCAUCMetric, compute_roc_auc
from sklearn.metrics import accuracy_score, confusion_matrix


def class_aucs(probabilities: torch.Tensor, labels: torch.Tensor) -> list[float]:
    """
    Area under the ROC curve of each class against all others.

    Args:
        probabilities: ``(N, C)``.
        labels: one-hot ``(N, C)``.

    Returns:
        one number a class, NaN for a class that all or none of the cases show.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="y values can not be all")
        values = compute_roc_auc(probabilities.detach().double().cpu(), labels.detach().cpu().int(), average="none")
    return [float(value) for value in np.asarray(values)]


def mean_auc(probabilities: torch.Tensor, labels: torch.Tensor) -> float:
    """The mean of :func:`class_aucs` over the classes that have one (macro average); NaN where none has."""
    values = [value for value in class_aucs(probabilities, labels) if not np.isnan(value)]
    return float(np.mean(values)) if values else float("nan")


class MeanAUC(ROCAUCMetric):
    """
    Cumulative :func:`mean_auc`: classes that a small validation part lacks are left out of the mean. MONAI's own macro
    average is NaN then, no model would ever be the best one, and none would be kept.
    """

    def aggregate(self, average: Any = None) -> float:
        """The mean over everything seen since the last reset."""
        probabilities, labels = self.get_buffer()
        return mean_auc(probabilities, labels)


def scores(probabilities: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """
    Args:
        probabilities: ``(N, C)``.
        labels: ``(N,)`` numbers of the classes.
        classes: C names.

    Returns:
        ``number``, ``auc`` (macro), ``auc_by_class``, ``accuracy`` and ``confusion`` (for each true class the counts of
        the predicted ones); an AUC that does not exist is None.
    """
    hot = torch.nn.functional.one_hot(torch.as_tensor(labels), len(classes))
    both = (torch.as_tensor(probabilities), hot)
    mean, *by_class = (None if np.isnan(v) else round(v, 4) for v in (mean_auc(*both), *class_aucs(*both)))
    predicted = probabilities.argmax(1)
    counts = confusion_matrix(labels, predicted, labels=range(len(classes))).tolist()
    return {
        "number": len(labels),
        "auc": mean,
        "auc_by_class": dict(zip(classes, by_class, strict=True)),
        "accuracy": round(float(accuracy_score(labels, predicted)), 4),
        "confusion": {name: dict(zip(classes, row, strict=True)) for name, row in zip(classes, counts, strict=True)},
    }


def by_subject(cases: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """
    Average the probabilities over the scans of each subject.

    Args:
        cases: dictionaries with ``subject``, ``label`` and ``probabilities``.

    Returns:
        the same for each subject, and ``scans``, their number.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for case in cases:
        groups.setdefault(case["subject"], []).append(case)
    return [
        {
            "subject": subject,
            "scans": len(group),
            "label": group[0]["label"],
            "probabilities": np.mean([case["probabilities"] for case in group], axis=0),
        }
        for subject, group in groups.items()
    ]
