# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from scripts.finetuning import SegmentationScores, case_scores
from scripts.finetuning.figures import label_planes, overlay_figure

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
    """Each scan is measured with its own voxels; its axes may run anywhere."""
    label = cube(4, 10)
    predictions = {"good": label, "shifted": label.roll(2, dims=1), "lost": cube(0, 0)}
    affine = torch.tensor([[0, -2.0, 0, 3], [1.0, 0, 0, 0], [0, 0, 1.0, 0], [0, 0, 0, 1]])  # first axis anterior
    outputs = []
    for name, prediction in predictions.items():
        meta = {"filename_or_obj": f"/data/{name}.nii.gz"}
        volumes = {"image": torch.rand(1, SIZE, SIZE, SIZE), "pred": prediction, "label": label}
        outputs.append([{key: MetaTensor(volume, affine=affine, meta=meta) for key, volume in volumes.items()}])
    engine = Engine(lambda _, batch: batch)
    SegmentationScores(str(tmp_path), ["blob", "absent"]).attach(engine)
    engine.run(outputs)

    def rows(name):
        with (tmp_path / f"{name}.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    assert [row["filename"] for row in rows("dice_raw")] == [f"/data/{name}.nii.gz" for name in predictions]
    assert [float(row["blob"]) for row in rows("dice_raw")] == pytest.approx([1, 4 / 6, 0], abs=1e-4)
    assert [float(row["blob"]) for row in rows("hausdorff_95_raw")] == [0, 2, math.inf]  # two voxels of 1 mm
    assert {row["absent"] for row in rows("dice_raw")} == {"nan"}
    assert float(rows("dice_summary")[0]["mean"]) == pytest.approx(np.mean([1, 4 / 6, 0]), abs=1e-4)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["blob"]["dice"] == pytest.approx(np.mean([1, 4 / 6, 0]), abs=1e-4)
    assert summary["blob"]["not_found"] == 1
    assert summary["blob"]["hausdorff_95"] == pytest.approx(1.0)
    assert summary["absent"]["dice"] is None
    for name in ("worst", "median"):
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000


def test_planes_are_turned_and_go_through_the_label():
    """Superior or anterior is up, right or anterior on the left, whatever way the file's axes run."""
    affine = torch.tensor([[0, -2.0, 0, 3], [1.0, 0, 0, 0], [0, 0, 3.0, 0], [0, 0, 0, 1]])
    volume = torch.zeros(1, 8, 9, 10)
    volume[0, 6:, :2, 8:] = 1  # anterior, right (the second axis runs to the left), superior
    planes, spacing = label_planes(*(MetaTensor(volume, affine=affine) for _ in range(3)))
    assert spacing == [2, 1, 3]
    for image, prediction, label in planes:
        assert label[:2, :2].all()
        assert label.sum() == 4
        assert (image == 255 * label).all()
        assert (prediction == label).all()


def test_a_structure_taken_for_another_is_seen():
    """What is found where the label shows another structure, or none, was not drawn."""
    true, predicted = np.zeros((2, 12, 12), dtype=np.uint8)
    true[3:7, 3:9], predicted[3:7, 3:9], predicted[9:11, 9:11] = 1, 2, 3
    figure = overlay_figure([[true * 50, predicted, true]] * 3, (1, 1, 1), "case")
    for place in figure.axes:
        assert len(place.collections) == 3  # outlines: one of the label, two of the prediction
        painted = np.asarray(place.images[1].get_array())[..., 3] > 0
        np.testing.assert_array_equal(painted, true != predicted)
