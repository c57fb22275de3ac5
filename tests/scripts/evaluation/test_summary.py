# SPDX-License-Identifier: Apache-2.0

"""Sums over pairs: labels in some, both directions one person pair."""

from __future__ import annotations

import math

import pytest
from scipy.stats import wilcoxon
from scripts.evaluation import gains, mean_measures, structure_rows, without_nan


def test_both_directions_and_all_scans_of_two_persons_are_one_value():
    gain = [0.1, 0.2, -0.05, 0.3, 0.15, 0.25, 0.02]
    pairs = [{"persons": (n, n + 1), "dice_before": 0.2, "dice_after": 0.2 + g} for n, g in enumerate(gain)]
    turned = [{**row, "persons": row["persons"][::-1]} for row in pairs]
    once, twice = gains(pairs, "dice"), gains(pairs + turned, "dice")
    assert once == pytest.approx(twice)
    assert once["person_pairs"] == 7
    assert once["higher_after"] == 6
    assert once["wilcoxon_p"] == pytest.approx(wilcoxon(gain).pvalue)


def test_no_test_with_few_pairs_or_without_a_change():
    rows = [{"persons": (n, n + 1), "ncc_before": 0.1, "ncc_after": 0.2} for n in range(5)]
    assert math.isnan(gains(rows, "ncc")["wilcoxon_p"])
    same = [{"persons": (n, n + 1), "ncc_before": 0.1, "ncc_after": 0.1} for n in range(8)]
    assert math.isnan(gains(same, "ncc")["wilcoxon_p"])
    assert gains(rows, "dice") == {}


def test_means_are_of_the_pairs_that_have_a_measure():
    """Whatever pair comes first: its names used to be asked of all."""
    with_labels = {"ncc_after": 0.4, "dice_after": 0.6, "dice_after:a": 0.5, "dice_after:b": math.nan}
    for pairs in ([{"ncc_after": 0.2}, with_labels], [with_labels, {"ncc_after": 0.2}]):
        assert mean_measures(pairs, ["ncc_after", "dice_after", "hd95_after"]) == pytest.approx(
            {"ncc_after": 0.3, "dice_after": 0.6}
        )
        structures = {"names": ["a", "b"], "groups": [[3], [4, 5]], "families": ["x", ""]}
        rows = structure_rows(pairs, structures, ["dice_after"])
        assert rows == [{"codes": "3", "structure": "a", "family": "x", "dice_after": 0.5}]


def test_without_nan():
    assert without_nan({"a": [1.0, math.nan], "b": {"c": math.nan}}) == {"a": [1.0, None], "b": {"c": None}}
