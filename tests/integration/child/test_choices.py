# SPDX-License-Identifier: Apache-2.0
"""What a child's settings are: chosen from the data, and a learning rate that follows the epochs."""

from __future__ import annotations

import json

import make_child
import numpy as np
import pytest
from child.choices import VALIDATION_OVERLAP, VALIDATION_SHARE, choose, epoch_length_for
from monai.bundle import ConfigParser

NAME = "blob_mr_segmentation"


def test_the_choices_follow_the_data(dataset):
    chosen = choose(dataset, NAME, {})
    assert chosen.settings["pixdim"] == [1.2, 1.2, 1.5]
    assert chosen.settings["patch_size"] == [24, 24, 24]
    assert (chosen.settings["epochs"], chosen.settings["epoch_length"]) == (50, 50)
    assert chosen.settings["intensity"] == "percentiles"
    assert chosen.settings["classes"] == [{"name": "blob", "codes": [7]}]


def test_a_voxel_size_that_blurs_the_data_is_told(dataset):
    assert choose(dataset, NAME, {}).notes == []
    padded, note = choose(dataset, NAME, {"pixdim": [5.0, 5.0, 5.0]}).notes
    assert "the rest is padding" in padded
    assert "made 3.9 times coarser along each axis: 1.2 x 1.2 x 1.5 mm become 5 x 5 x 5 mm" in note


def test_thick_slices_are_not_tilted(dataset):
    assert "rotation" not in choose(dataset, NAME, {}).settings
    assert choose(dataset, NAME, {"pixdim": [1.2, 1.2, 8.0]}).settings["rotation"] == [0, 0, 0.26]


def test_a_validation_does_not_dominate():
    """Three windows an axis of ten validation cases cost about 90 training steps: a fifth of 450."""
    assert epoch_length_for([96, 96, 96], [48, 48, 48], 67) == pytest.approx(4 * 27 * 11 / 3, abs=10)
    template = json.loads((make_child.CHILD / "segmentation" / "train.json").read_text(encoding="utf-8"))
    assert template["validate"]["inferer"]["overlap"] == VALIDATION_OVERLAP
    assert template["validation_fraction"] == VALIDATION_SHARE


@pytest.mark.parametrize("task", make_child.TASKS)
@pytest.mark.parametrize(("epochs", "max_epochs"), [(10, 10), (4, 10), (10, 1)])
def test_the_learning_rate_follows_the_epochs_that_are_trained(task, epochs, max_epochs):
    """MONAI Label and a resumed run make it longer; a federated client sets ``max_epochs`` to those of one round."""
    parser = ConfigParser()
    parser.read_config(str(make_child.CHILD / task / "train.json"))
    parser["epochs"] = epochs
    parser["train#trainer#max_epochs"] = max_epochs
    parser["epoch_length"] = 8
    parser["warmup_steps"] = 3
    factor = parser.get_parsed_content("lr_scheduler#lr_lambda")
    assert [factor(step) for step in (0, 1, 3, 40, 80, 88)] == pytest.approx(
        [0.25, 0.5 * (1 - 1 / 80) ** 0.9, (1 - 3 / 80) ** 0.9, 0.5**0.9, 0, 0]
    )


@pytest.mark.parametrize("task", make_child.TASKS)
def test_the_learning_rate_rises_by_step(task):
    """A change by epoch would make of a warm-up of 20 steps one of 20 epochs."""
    template = json.loads((make_child.CHILD / task / "train.json").read_text(encoding="utf-8"))
    schedule = next(h for h in template["train"]["handlers"] if h["_target_"] == "LrScheduleHandler")
    assert schedule["epoch_level"] is False


def test_the_budget_of_memory_sets_the_patch(dataset):
    """The parent's plan: less memory, smaller patches; never above what the scan needs."""
    assert choose(dataset, NAME, {"pixdim": [0.5, 0.5, 0.5]}).settings["patch_size"] == [64, 64, 72]
    small = choose(dataset, NAME, {"pixdim": [0.5, 0.5, 0.5]}, memory=1)
    assert np.prod(small.settings["patch_size"]) <= (0.8e9 - 0.5e9) / (2200 + 110 * 16)
    assert "at most 75,757 voxels" in small.reasons["patch_size"]
