# SPDX-License-Identifier: Apache-2.0
"""What a linear model says of patients from the pooled features of their scans, and how well."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from ..finetuning import mean_auc

FEWEST = 5
"""Patients of a class or a group."""


@torch.no_grad()
def pooled_features(backbone: nn.Module, image: torch.Tensor) -> np.ndarray:
    """
    Args:
        backbone: image to (f^g, f^l).
        image: ``(1, D, H, W)``, on its device.

    Returns:
        the mean of the global features f^g over the scan, ``(Cg,)``.
    """
    return backbone(image[None])[0].flatten(2).mean(dim=2)[0].float().cpu().numpy()


def cross_validated(
    features: np.ndarray, targets: np.ndarray, owners: np.ndarray, task: str, folds: int = 5, seed: int = 0
) -> np.ndarray:
    """
    What a linear model of scikit-learn says of scans of patients it has not seen: logistic regression (C 0.1) or ridge
    regression (its penalty chosen inside each fold), on standardised features.

    Args:
        features: ``(N, C)``.
        targets: ``(N,)`` classes or numbers.
        owners: ``(N,)`` patient of each scan; a patient's scans are held back together.
        task: "classification" or "regression".
        folds: of the cross-validation.
        seed: of the folds of a classification.

    Returns:
        probabilities ``(N, K)`` of the sorted classes, or numbers ``(N,)``.
    """
    from sklearn.linear_model import LogisticRegression, RidgeCV
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if task == "classification":
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
        split = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
        return cross_val_predict(model, features, targets, groups=owners, cv=split, method="predict_proba")
    model = make_pipeline(StandardScaler(), RidgeCV(alphas=np.logspace(0, 5, 11)))
    return cross_val_predict(model, features, targets, groups=owners, cv=GroupKFold(folds))


def scan_scores(found: np.ndarray, targets: np.ndarray, task: str) -> dict[str, float]:
    """
    Args:
        found: see :func:`cross_validated`.
        targets: ``(N,)``.
        task: "classification" or "regression".

    Returns:
        ``auroc`` and ``f1`` (means of the classes) and ``accuracy``; or ``r2`` and ``mae``.
    """
    from sklearn.metrics import accuracy_score, f1_score, mean_absolute_error, r2_score

    if task == "regression":
        return {"r2": float(r2_score(targets, found)), "mae": float(mean_absolute_error(targets, found))}
    classes = np.unique(targets)
    chosen = classes[found.argmax(axis=1)]
    auroc = mean_auc(torch.as_tensor(found), torch.as_tensor(targets[:, None] == classes))
    f1 = float(f1_score(targets, chosen, average="macro"))
    return {"auroc": auroc, "f1": f1, "accuracy": float(accuracy_score(targets, chosen))}


def scores_by_group(found: np.ndarray, targets: np.ndarray, groups: np.ndarray, task: str) -> dict[str, Any]:
    """
    Args:
        found: see :func:`cross_validated`.
        targets: ``(N,)``.
        groups: ``(N,)``.
        task: "classification" or "regression".

    Returns:
        the ``measure`` (AUROC, or mean absolute error), its ``scores`` by group, without groups that are small or lack
        a class, and the ``gap`` between the best and the worst.
    """
    key = "auroc" if task == "classification" else "mae"
    scores: dict[str, float] = {}
    for name in np.unique(groups):
        own = groups == name
        if own.sum() < FEWEST or (task == "classification" and len(np.unique(targets[own])) < len(np.unique(targets))):
            continue
        scores[str(name)] = scan_scores(found[own], targets[own], task)[key]
    gap = max(scores.values()) - min(scores.values()) if len(scores) > 1 else None
    return {"measure": key, "scores": scores, "gap": gap}
