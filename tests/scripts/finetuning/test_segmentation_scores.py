# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from scripts.finetuning import SegmentationScores, case_scores

SIZE = 16


def cube(low, high, classes=2):
    """One-hot volume with structure 1 in a cube."""
    numbers = torch.zeros(SIZE, SIZE, SIZE, dtype=torch.long)
    numbers[low:high, low:high, low:high] = 1
    return torch.nn.functional.one_hot(numbers, classes + 1).movedim(-1, 0).float()


def test_equal_segmentations_score_best_and_absent_structures_nothing():
    scores = case_scores(cube(4, 10), cube(4, 10), (1, 1, 1), 1)
    assert [scores[name][0] for name in ("dice", "hausdorff_95", "surface_dice")] == [1, 0, 1]
    assert all(math.isnan(values[1]) for values in scores.values())


def test_a_shift_is_measured_in_millimetres():
    moved = cube(4, 10).roll(2, dims=1)
    scores = case_scores(moved, cube(4, 10), (1.5, 1, 1), 1)
    assert scores["dice"][0] == pytest.approx(4 / 6)
    assert scores["hausdorff_95"][0] == pytest.approx(3.0)
    assert 0 < scores["surface_dice"][0] < 1


def test_a_structure_that_was_not_found():
    scores = case_scores(cube(0, 0), cube(4, 10), (1, 1, 1), 1)
    assert [scores[name][0] for name in ("dice", "hausdorff_95", "surface_dice")] == [0, math.inf, 0]


def test_files_of_an_evaluation(tmp_path):
    label = cube(4, 10)
    image = MetaTensor(torch.rand(1, SIZE, SIZE, SIZE))
    predictions = {"good": label, "shifted": label.roll(2, dims=1), "lost": cube(0, 0)}
    outputs = []
    for name, prediction in predictions.items():
        image = MetaTensor(torch.rand(1, SIZE, SIZE, SIZE), meta={"filename_or_obj": f"/data/{name}.nii.gz"})
        outputs.append([{"image": image, "pred": prediction, "label": label}])
    engine = Engine(lambda _, batch: batch)
    SegmentationScores(str(tmp_path), ["blob", "absent"], (1, 1, 1)).attach(engine)
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda _: None)
    engine.run(outputs)
    with (tmp_path / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["case"], row["structure"]) for row in rows[:2]] == [("good.nii.gz", "blob"), ("good.nii.gz", "absent")]
    assert [float(row["dice"]) for row in rows[::2]] == pytest.approx([1, 4 / 6, 0])
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["blob"]["dice"] == pytest.approx(np.mean([1, 4 / 6, 0]), abs=1e-4)
    assert summary["blob"]["not_found"] == 1
    assert summary["blob"]["hausdorff_95"] == pytest.approx(1.0)
    assert summary["absent"]["dice"] is None
    for name in ("worst", "median"):
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000
