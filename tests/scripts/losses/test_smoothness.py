# SPDX-License-Identifier: Apache-2.0

"""The smoothness of a displacement, against numpy's differences."""

import numpy as np
import pytest
import torch
from random_volumes import noise
from scripts.losses import SmoothnessLoss

SIZES = [(11, 9, 7), (13, 10)]


@pytest.mark.parametrize("size", SIZES)
def test_smoothness_value(size):
    """Squared forward differences, mean per axis, mean over axes; float32 of half-precision fields."""
    field = noise(2, len(size), *size)
    parts = [np.mean(np.diff(field.numpy(), axis=axis) ** 2) for axis in range(2, 2 + len(size))]
    found = SmoothnessLoss()(field)
    assert found.item() == pytest.approx(np.mean(parts), rel=1e-5)
    half = SmoothnessLoss()(field.half())
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(np.mean(parts), rel=1e-2)


def test_smoothness_sees_a_checkerboard():
    """A checkerboard of +-1 costs 4 (central differences would give 0); a shift costs nothing, a slope its square."""
    x, y, z = torch.meshgrid(*[torch.arange(6.0)] * 3, indexing="ij")
    board = ((x + y + z) % 2 * 2 - 1).expand(1, 3, 6, 6, 6)
    loss = SmoothnessLoss()
    assert loss(board).item() == pytest.approx(4)
    assert loss(torch.full((1, 3, 6, 6, 6), 7.0)).item() == 0
    slope = torch.zeros(1, 3, 6, 6, 6)
    slope[0, 1] = 0.5 * x
    assert loss(slope).item() == pytest.approx(0.25 / 3 / 3)


def test_smoothness_of_a_single_slice():
    """An axis of one voxel has no differences and is left out."""
    field = noise(1, 3, 6, 5, 1)
    parts = [np.mean(np.diff(field.numpy(), axis=axis) ** 2) for axis in (2, 3)]
    assert SmoothnessLoss()(field).item() == pytest.approx(np.mean(parts), rel=1e-5)
