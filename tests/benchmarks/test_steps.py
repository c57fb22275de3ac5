# SPDX-License-Identifier: Apache-2.0

"""Dice over the steps of a fine-tuning, from the results of few labels."""

from __future__ import annotations

import pytest
import steps
from evidence import results
from evidence.plan import Unit
from evidence.results import Value
from PIL import Image
from scripts.errors import InputError


def test_a_curve_begins_with_the_layer(tmp_path):
    """That of the same arm, set and number of labels."""
    unit = Unit("ixi_brain", "shipped", "0", "ixi_brain", "fine_tuning_converged", "3")
    path = tmp_path / "few_labels.csv"
    tuned = [Value("dice", "a", 0.9), Value("dice_at_step", "80", 0.9), Value("dice_at_step", "40", 0.8)]
    results.append(path, unit, tuned)
    layer = unit._replace(measure="levels_probe")
    results.append(path, layer, [Value("dice", "a", 0.5), Value("dice", "b", 0.7)])
    results.append(path, layer._replace(labelled="1"), [Value("dice", "a", 0.1)])
    results.append(path, unit._replace(seed="1"), [Value("dice_at_step", "80", 0.7)])
    found = results.read(path)
    assert steps.curve(found, "shipped", "ixi_brain", "3") == {0: pytest.approx(0.6), 40: 0.8, 80: pytest.approx(0.8)}
    assert not steps.curve(found, "shipped", "ixi_brain", "1")
    assert not steps.curve(found, "random", "ixi_brain", "3")
    (axes,) = steps.drawn(found).axes
    assert [list(line.get_xdata()) for line in axes.get_lines()] == [[0, 40, 80]]
    steps.main(["--results", str(path), "--out", str(tmp_path / "steps.png")])
    with Image.open(tmp_path / "steps.png") as drawn:
        assert min(drawn.size) > 100


def test_nothing_to_draw_is_said(tmp_path):
    with pytest.raises(InputError, match=r"run benchmarks/few_labels\.json first"):
        steps.main(["--results", str(tmp_path / "none.csv"), "--out", str(tmp_path / "steps.png")])
