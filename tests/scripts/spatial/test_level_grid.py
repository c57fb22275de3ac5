# SPDX-License-Identifier: Apache-2.0
"""Levels of a backbone lie where its poolings put them, also of sizes that it pads."""

from __future__ import annotations

import pytest
import torch
from scripts.networks import UNetBackbone
from scripts.spatial import (
    affine_about_centre,
    apply_affine,
    box_mean,
    from_level,
    inverse_affine,
    inverse_on_level,
    level_positions,
    linear_matrix,
    on_level,
    sample,
    to_level,
    voxel_grid,
)
from torch.nn import functional

SIZES = [(16, 24, 32), (13, 18, 9), (24, 17)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_positions_are_those_of_the_pooled_padded_image(size, stride):
    backbone = UNetBackbone(len(size), 1, (4, 4, 4, 4))
    features = backbone.levels(torch.zeros(1, 1, *size))
    level = features[1 if stride == 1 else -(stride.bit_length() - 1)].shape[2:]
    grid = voxel_grid(size, torch.zeros(1))
    padding = backbone.padding(list(size)) if stride > 1 else [0] * 2 * len(size)
    padded = [n + padding[2 * k] + padding[2 * k + 1] for k, n in enumerate(reversed(size))][::-1]
    before = torch.tensor([padding[2 * k] for k in range(len(size))][::-1]).float()
    wide = voxel_grid(padded, grid) - before.reshape(-1, *[1] * len(size))
    pool = functional.avg_pool3d if len(size) == 3 else functional.avg_pool2d
    expected = pool(wide[None], stride)
    found = level_positions(size, level, stride, grid)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(to_level(found, size, level, stride)[0], voxel_grid(level, grid))


@pytest.mark.parametrize("size", SIZES)
def test_a_ramp_goes_to_a_level_and_back(size):
    level = [-(-n // 8) * 4 for n in size]
    ramp = voxel_grid(size, torch.zeros(1))[None]
    there = on_level(ramp, level, 2)
    positions = level_positions(size, level, 2, ramp)
    last = (torch.tensor(size) - 1.0).reshape(1, -1, *[1] * len(size))
    torch.testing.assert_close(there, torch.minimum(positions.clamp(min=0), last))
    back = from_level(there, size, 2)
    inner = (slice(None), slice(None)) + tuple(slice(2, n - 2) for n in size)
    torch.testing.assert_close(back[inner], ramp[inner])


@pytest.mark.parametrize("stride", [1, 2])
def test_the_inverse_of_a_map_leads_back(stride):
    """``A(p + w(p))``, then the map back, ends where it began; on a level as on the image."""
    size, level = (24, 20, 28), [n // stride for n in (24, 20, 28)]
    linear = linear_matrix(torch.tensor([[0.1, -0.2, 0.15]]), torch.tensor([[1.1, 0.9, 1.0]]), torch.zeros(1, 6))
    affine = affine_about_centre(linear, torch.tensor([[1.0, -2.0, 0.5]]), size)
    noise = torch.randn(1, 3, *level, generator=torch.Generator().manual_seed(0))
    back = 5 * box_mean(noise, 5)
    found = inverse_on_level(back, affine, size, stride, steps=12)
    position = level_positions(size, level, stride, back)
    there = apply_affine(affine, position + found)
    again = there + sample(back, to_level(there, size, level, stride), padding_mode="border")
    torch.testing.assert_close(apply_affine(inverse_affine(affine), again), position, atol=0.05, rtol=0)


def test_the_inverse_of_a_stretch_settles():
    """A map back that stretches to two and a half times: whole steps go further away with each."""
    size = (20, 20)
    position = voxel_grid(size, torch.zeros(1))[None]
    back = 1.5 * (position - 9.5)
    found = inverse_on_level(back, torch.eye(2, 3)[None], size, 1, steps=8)
    torch.testing.assert_close(found, -0.6 * (position - 9.5), atol=0.02, rtol=0)
