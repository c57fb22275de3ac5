# SPDX-License-Identifier: Apache-2.0
"""The table of matches: what each is trusted for, and which to look at; a pair matched again has one row."""

from __future__ import annotations

import csv

import pytest
import torch
from scripts.matching.match_table import add_row, measure


def batch(inliers=None):
    image = torch.rand(1, 1, 12, 12, 12, generator=torch.Generator().manual_seed(0))
    pred = {"warped": image, "displacement": torch.zeros(1, 3, 12, 12, 12)}
    if inliers is not None:
        pred |= {
            "agreement": torch.tensor([0.8]),
            "inliers": torch.tensor([inliers]),
            "conditioning": torch.tensor([0.5]),
        }
    return {"image": image, "pred": pred}


@pytest.mark.parametrize(("inliers", "look"), [(0.97, "no"), (0.7, "yes")])
def test_few_inliers_are_pointed_out(inliers, look):
    row = measure(batch(inliers))
    assert row["look_at"] == look
    assert float(row["inliers"]) == pytest.approx(inliers)
    assert float(row["ncc"]) == pytest.approx(1, abs=1e-3)


def test_without_a_confidence_nothing_is_claimed():
    assert "look_at" not in measure(batch())


def test_a_pair_matched_again_has_one_row(tmp_path):
    for result, inliers in (("a", 0.95), ("b", 0.5), ("a", 0.2)):
        add_row(tmp_path, result, measure(batch(inliers)))
    with (tmp_path / "matches.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["result"], row["look_at"]) for row in rows] == [("b", "yes"), ("a", "yes")]
