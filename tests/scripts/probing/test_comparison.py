# SPDX-License-Identifier: Apache-2.0

"""Differences with their uncertainty, and the verdict: it helps only where neither chance nor the labels alone tell."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_1samp
from scripts.probing import compare, verdict

SURE = {"difference": 0.2, "low": 0.1, "high": 0.3}


def gain(difference: float, low: float, high: float) -> dict[str, float]:
    return {"difference": difference, "low": low, "high": high}


def of(values: np.ndarray) -> dict[str, float]:
    return {str(number): float(value) for number, value in enumerate(values)}


def test_the_interval_is_students_where_nothing_is_learned():
    rng = np.random.default_rng(0)
    first, second = rng.normal(0.7, 0.1, 9), rng.normal(0.6, 0.1, 9)
    found = compare(of(first), of(second))
    wanted = ttest_1samp(first - second, 0).confidence_interval(0.95)
    assert (found["low"], found["high"]) == pytest.approx((wanted.low, wanted.high))
    assert found["difference"] == pytest.approx(found["mean"] - found["other_mean"])
    assert found["higher"] == (first > second).sum()


def test_shared_training_widens_the_interval_as_published():
    rng = np.random.default_rng(0)
    first, second = rng.normal(0.7, 0.1, 10), rng.normal(0.6, 0.1, 10)
    widths = [found["high"] - found["low"] for found in (compare(of(first), of(second), folds) for folds in (0, 5, 2))]
    assert widths[1] / widths[0] == pytest.approx(np.sqrt((1 / 10 + 2 / 8) / (1 / 10)))
    assert widths[2] > widths[1]


def test_a_single_subject_tells_nothing():
    found = compare({"a": 1.0}, {"a": 0.0})
    assert (found["low"], found["high"]) == (-np.inf, np.inf)


@pytest.mark.parametrize(
    ("found", "follows", "word"),
    [
        (gain(0.05, 0.01, 0.09), SURE, "helps"),
        (gain(0.05, -0.01, 0.11), SURE, "no difference seen"),
        (gain(-0.001, -0.006, 0.004), SURE, "does not help"),
        (gain(-0.05, -0.09, -0.01), SURE, "does not help"),
        (gain(0.005, 0.002, 0.008), SURE, "does not help"),
        (gain(0.008, 0.002, 0.014), SURE, "no difference seen"),
        (gain(0.05, 0.01, 0.09), gain(0.0, -0.1, 0.1), "no difference seen"),
        (gain(-0.05, -0.09, -0.01), gain(0.0, -0.1, 0.1), "no difference seen"),
    ],
)
def test_the_verdict_follows_the_rule(found, follows, word):
    said = verdict(found, follows, worthwhile=0.01)
    assert said["verdict"] == word
    assert f"{found['difference']:+.3f}" in said["why"]
    assert "0.01" in said["rule"]


def test_chance_alone_seldom_helps():
    """Differences of no mean, correlated within a fold as of networks that were trained once for each."""
    rng = np.random.default_rng(1)
    words = []
    for _ in range(400):
        values = np.repeat(rng.normal(0, 0.03, 5), 2) + rng.normal(0, 0.02, 10)
        words.append(verdict(compare(of(values), of(np.zeros(10)), 5), SURE)["verdict"])
    assert words.count("helps") / len(words) < 0.025
