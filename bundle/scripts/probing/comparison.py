# SPDX-License-Identifier: Apache-2.0
"""Two measures of the same subjects compared, with the uncertainty of their difference; the verdict of a probe."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

CONFIDENCE = 0.95
RULE = (
    "It helps if the whole 95 % interval of the gain in Dice, by fine-tuning from the weights in place of random ones, "
    "lies above 0 and its mean is {worthwhile:g} or more. It does not help if the whole interval lies below "
    "{worthwhile:g}. Else no difference is seen. Nor is one where true labels are not learned better than labels that "
    "were exchanged between the scans (interval above 0): then the labels do not follow the images."
)


def compare(ours: Mapping[str, float], other: Mapping[str, float], folds: int = 0) -> dict[str, Any]:
    """
    The mean difference of two measures of the same subjects and its 95 % interval, by Student's t. In a
    cross-validation the folds share most of what they learn from, so that their differences are not independent: the
    variance is then enlarged as Nadeau and Bengio do ("Inference for the generalization error", Machine Learning 52,
    2003), by the ratio of the subjects held back to those learned from.

    Args:
        ours: a measure by subject.
        other: what it is compared with, of the same subjects.
        folds: of the cross-validation; 0 where nothing is learned.

    Returns:
        ``mean`` and ``other_mean``, ``difference`` and its ``low`` and ``high`` end, ``subjects`` and in how many of
        them ours is ``higher``.
    """
    subjects = list(ours)
    gains = np.array([ours[subject] - other[subject] for subject in subjects])
    number = len(gains)
    mean, half = float(gains.mean()), math.inf
    if number > 1:
        from scipy.stats import t

        shared = 1 / (folds - 1) if folds else 0.0
        half = float(t.ppf((1 + CONFIDENCE) / 2, number - 1) * gains.std(ddof=1) * math.sqrt(1 / number + shared))
    return {
        "mean": float(np.mean([ours[subject] for subject in subjects])),
        "other_mean": float(np.mean([other[subject] for subject in subjects])),
        "difference": mean,
        "low": mean - half,
        "high": mean + half,
        "subjects": number,
        "higher": int((gains > 0).sum()),
    }


def verdict(gain: Mapping[str, Any], follows: Mapping[str, Any], worthwhile: float = 0.01) -> dict[str, str]:
    """
    Args:
        gain: fine-tuning from the weights compared with from scratch, see :func:`compare`.
        follows: a linear probe of the true labels compared with one of labels exchanged between the scans.
        worthwhile: the smallest gain in Dice that one would pre-train for.

    Returns:
        ``verdict``: "helps", "no difference seen" or "does not help"; ``why`` in a sentence; the ``rule``.
    """
    interval = f"{gain['difference']:+.3f} Dice (95 % interval {gain['low']:+.3f} to {gain['high']:+.3f})"
    rule = RULE.format(worthwhile=worthwhile)
    if follows["low"] <= 0:
        sure = f"{follows['difference']:+.3f} Dice (95 % interval {follows['low']:+.3f} to {follows['high']:+.3f})"
        why = (
            "it is not shown that the labels follow the images as these are sampled here: true labels are learned no "
            f"better than ones exchanged between the scans, {sure}; the gain would be {interval}"
        )
        return {"verdict": "no difference seen", "why": why, "rule": rule}
    if gain["low"] > 0 and gain["difference"] >= worthwhile:
        word, why = "helps", f"fine-tuning from the weights gains {interval} on subjects held back"
    elif gain["high"] < worthwhile:
        word, why = (
            "does not help",
            f"fine-tuning from the weights changes {interval}, less than {worthwhile:g} at best",
        )
    else:
        word = "no difference seen"
        why = f"fine-tuning from the weights changes {interval}: more subjects or steps may tell"
    return {"verdict": word, "why": why, "rule": rule}
