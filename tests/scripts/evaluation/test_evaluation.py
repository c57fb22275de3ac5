# SPDX-License-Identifier: Apache-2.0

"""What an evaluation keeps of each pair."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from made_up_reports import OUTSIDE, evaluation
from monai.data import MetaTensor


def test_a_pair_keeps_why_it_should_be_looked_at(tmp_path: Path) -> None:
    """Which number lies outside which bound, in the table of pairs too."""
    made, engine = evaluation(tmp_path)
    made.trusted = {"agreement": [0.72, 1.0], "inliers": [0.8, 1.0]}
    image = MetaTensor(torch.rand(1, 1, 4, 4, 4), affine=torch.eye(4)[None])
    names = {f"{key}_name": [made.dataset.names[place]] for key, place in (("image", 0), ("moving", 1))}
    for agreement in (0.3, 0.8):
        pred = {"agreement": torch.tensor([agreement]), "inliers": torch.tensor([0.9])}
        engine.state.batch, engine.state.output = {"image": image, **names}, {"pred": pred}
        made.iteration_completed(engine)
    assert [(row["look_at"], row["doubts"]) for row in made.pairs[-2:]] == [("yes", OUTSIDE), ("no", "")]
    made.completed(engine)
    with (tmp_path / "pairs.csv").open(newline="", encoding="utf-8") as file:
        assert [row["doubts"] for row in csv.DictReader(file)][-2:] == [OUTSIDE, ""]


def test_a_pair_keeps_that_its_map_was_discarded_and_lengths_in_millimetres(tmp_path: Path) -> None:
    """The prepared images of a report have lost their affines: before, its millimetres were voxels."""
    made, engine = evaluation(tmp_path)
    made.trusted, made.spacing = {"agreement": [0.72, 1.0]}, [3.0, 3.0, 3.0]
    still = torch.eye(3, 4)[None]
    pred = {"agreement": torch.tensor([0.8]), "affine": still, "backward_affine": still}
    pred |= {"matched_affine": still + torch.tensor([0.0, 0.0, 0.0, 2.0]), "shifted": torch.tensor([True])}
    image = MetaTensor(torch.ones(1, 1, 4, 4, 4))
    names = {f"{key}_name": [made.dataset.names[place]] for key, place in (("image", 0), ("moving", 1))}
    engine.state.batch, engine.state.output = {"image": image, **names}, {"pred": pred}
    made.iteration_completed(engine)
    row = made.pairs[-1]
    assert (row["look_at"], row["doubts"]) == (
        "yes",
        "no global match: the scans are laid upon each other by a shift alone",
    )
    assert row["inverse_consistency_voxels"] == pytest.approx(2 * 3**0.5)
    assert row["inverse_consistency_mm"] == pytest.approx(6 * 3**0.5)
