# SPDX-License-Identifier: Apache-2.0
"""Pairs of label maps that do not show the same structures, and the line that says so."""

import pytest
import torch
from scripts.data.label_checks import tell_missing
from scripts.evaluation import DetailedQuality, common_structures


def test_what_both_show_stays():
    first, second = torch.tensor([0.0, 1.0, 2.0, 205.0]), torch.tensor([205.0, 0.0, 2.0, 7.0])
    kept = common_structures(first, second)
    assert [one.tolist() for one in kept] == [[0, 0, 2, 205], [205, 0, 2, 0]]
    assert first.tolist() == [0, 1, 2, 205]


@pytest.mark.parametrize(("partial", "dice"), [(False, [1.0, 0.0, 0.0]), (True, [1.0, None, None])])
def test_a_pair_is_scored_on_what_both_show(partial, dice):
    """Two pairs of a batch; of the first each map lacks a structure that the other shows."""

    class Restores(torch.nn.Module):
        def forward(self, image):
            return image

    labels = torch.zeros(2, 2, 1, 6, 6, 6)
    labels[:, :, 0, :2] = 10
    labels[0, 0, 0, 3], labels[1, 0, 0, 5] = 20, 30
    labels[:, 1, 0, 3], labels[:, 1, 0, 5] = 20, 30
    image, still = torch.rand(2, 1, 6, 6, 6), torch.zeros(2, 3, 6, 6, 6)
    data = {"image": image, "moving": image, "corrupted": image, "image_label": labels[0], "moving_label": labels[1]}
    data["pred"] = {"displacement": still, "warped": image}
    found = DetailedQuality(Restores(), [[10], [20], [30]], partial=partial)(data)
    for when in ("before", "after"):
        first, second = found[f"structure_dice_{when}"]
        assert [None if value.isnan() else value.item() for value in first] == dice
        assert second.tolist() == [1, 1, 1]
    assert found["dice_after"][0].item() == pytest.approx(1.0 if partial else 1 / 3)


@pytest.mark.parametrize(
    ("shown", "line"),
    [
        ([[0, 1, 2], [0, 1, 3]], ""),
        ([[0, 1], [0, 1]], ""),
        ([[0, 1, 2], [0, 1], [0, 3]], "label maps: of 3, cord in 2, jaw in 2; what a map"),
    ],
)
def test_a_line_says_which_structures_maps_lack(shown, line, capsys):
    tell_missing({"cord": [1], "jaw": [2, 3]}, shown)
    told = capsys.readouterr().out
    assert told.startswith(line) if line else not told
    assert not line or "pass --partial_labels True" in told
