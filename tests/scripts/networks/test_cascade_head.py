# SPDX-License-Identifier: Apache-2.0

import pytest
import torch
from scripts.networks import CascadeHead, CorrelationHead, DeformableHead, LocalHead
from scripts.spatial import compose, warp
from torch import nn


class Shift(LocalHead):
    """A head that always finds the same shift, and remembers what it was shown."""

    def __init__(self, *voxels: float) -> None:
        super().__init__()
        self.voxels = torch.tensor(voxels)

    def field(self, moving: torch.Tensor, fixed: torch.Tensor) -> torch.Tensor:
        self.moving = moving
        return self.voxels.reshape(1, -1, 1, 1, 1).expand(len(fixed), -1, *fixed.shape[2:])


def test_each_stage_sees_what_the_ones_before_it_have_aligned():
    first, second = Shift(1.0, 0.0, -2.0), Shift(0.0, 3.0, 0.0)
    moving = torch.rand(2, 4, 8, 9, 10)
    field = CascadeHead([first, second]).field(moving, moving)
    assert torch.equal(first.moving, moving)
    assert torch.allclose(second.moving, warp(moving, first.field(moving, moving)), atol=1e-6)
    assert torch.allclose(field[0, :, 4, 4, 4], torch.tensor([1.0, 3.0, -2.0]))


def test_the_maps_are_composed_not_added():
    """Warping once by the result is warping by the first stage's map, then by the second's."""
    grid = torch.linspace(0, 6.28, 24)
    wave = torch.stack(torch.meshgrid(grid, grid, grid, indexing="ij")).sin()[None]
    image = wave[:, :1] + wave[:, 1:2].flip(3)
    outer, inner = 2 * wave.roll(4, 2), 1.5 * wave.flip(4)
    twice, once = warp(warp(image, outer, padding_mode="border"), inner), warp(image, compose(outer, inner))
    middle = (..., *[slice(5, -5)] * 3)
    assert (twice - once)[middle].abs().max() < 0.03
    assert (warp(image, outer + inner) - once)[middle].abs().max() > 0.1


@pytest.mark.parametrize("dims", [2, 3])
def test_training_starts_at_the_correlation_and_reaches_every_parameter(dims):
    torch.manual_seed(0)
    head = CascadeHead([CorrelationHead(4, 4, dims, radius=2), DeformableHead(4, 8, dims)])
    fixed = torch.randn(1, 4, *[12] * dims)
    moving = fixed.roll(1, dims=2)
    field = head.field(moving, fixed)
    assert field.shape == (1, dims, *[12] * dims)
    assert torch.allclose(field, head.stages[0].field(moving, fixed), atol=1e-4)  # the second stage starts at zero
    nn.init.normal_(head.stages[1].displacement.weight, std=0.1)
    head.field(moving, fixed).square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in head.parameters())
