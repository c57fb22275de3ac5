# SPDX-License-Identifier: Apache-2.0
"""Linear maps found by matching."""

from __future__ import annotations

import math

import pytest
import torch
from scripts.spatial import linear_matrix
from scripts.spatial.linear_maps import apart, between_lengths, leads_back, plausible


def turned(degrees=0.0, scale=(1.0, 1.0, 1.0)):
    return linear_matrix(torch.tensor([[0.0, 0.0, math.radians(degrees)]]), torch.tensor([scale]), torch.zeros(1, 6))


def test_rotations_by_less_than_two_degrees_are_close():
    assert apart(turned(), turned(1.7)) == pytest.approx(0.03, abs=1e-3)
    assert apart(turned(10), turned(10)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("linear", "back"),
    [
        (turned(40), True),
        (turned(0, (3.0, 0.2, 1.0)), True),
        (turned(0, (1.0, 1.0, 0.01)), False),
        (turned(0, (0.0, 1.0, 1.0)), False),
        (torch.full((1, 3, 3), float("nan")), False),
    ],
)
def test_a_flat_map_does_not_lead_back(linear, back):
    assert leads_back(linear) == back
    assert not leads_back(torch.cat([linear, torch.zeros(1, 3, 3)]))


def test_a_rotation_is_one_of_lengths_whatever_the_voxels():
    """Of voxels that are longer along the second axis it stretches and squeezes."""
    spacing = [1.5, 9.0, 1.5]
    of_voxels = between_lengths(turned(25), [1 / edge for edge in spacing])
    assert torch.linalg.svdvals(of_voxels).max() > 2
    torch.testing.assert_close(
        of_voxels[0], torch.diag(1 / torch.tensor(spacing)) @ turned(25)[0] @ torch.diag(torch.tensor(spacing))
    )
    torch.testing.assert_close(between_lengths(of_voxels, spacing), turned(25))


@pytest.mark.parametrize("scale", [(2.5, 1.0, 1.0), (0.4, 1.0, 1.0), (-1.0, 1.0, 1.0)])
def test_a_map_that_cannot_be_of_anatomy_becomes_the_identity(scale):
    maps = torch.cat([turned(20, scale), turned(20, (1.2, 0.8, 1.0))])
    torch.testing.assert_close(plausible(maps), torch.cat([torch.eye(3)[None], maps[1:]]))
