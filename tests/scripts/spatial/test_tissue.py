# SPDX-License-Identifier: Apache-2.0

"""How near a place is to the middle of a scan."""

from __future__ import annotations

import math

import pytest
import torch
from scripts.spatial.tissue import middle


@pytest.mark.parametrize("size", [(9, 7, 5), (8, 6)])
def test_weights_fall_from_the_middle_to_the_borders(size):
    """Alike along each axis, whatever its length: 1 in the middle, exp(-2) at a border's middle; one voxel is all."""
    weight = middle(size, torch.zeros(1))
    assert weight.shape == (1, 1, *size)
    torch.testing.assert_close(weight, weight.flip(*range(2, 2 + len(size))))
    if all(n % 2 for n in size):
        centre = [n // 2 for n in size]
        assert weight[(0, 0, *centre)] == 1
        for axis in range(len(size)):
            border = [0 if other == axis else n for other, n in enumerate(centre)]
            assert float(weight[(0, 0, *border)]) == pytest.approx(math.exp(-2), rel=1e-4)
    assert middle([1] * len(size), torch.zeros(1)) == 1
