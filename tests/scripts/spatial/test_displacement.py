# SPDX-License-Identifier: Apache-2.0

"""Field of view and folding, against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scripts.errors import InputError
from scripts.spatial import affine_displacement, inside_volume, jacobian_determinant

SIZES = [(9, 7, 5), (8, 13, 6), (11, 7)]


@pytest.mark.parametrize("size", SIZES)
def test_inside_volume(size):
    """The mask is exactly where p + u(p) lies between the first and the last voxel's centre."""
    field = torch.as_tensor(np.random.default_rng(4).normal(scale=3, size=(2, len(size), *size)))
    position = np.indices(size) + field.numpy()
    last = (np.array(size) - 1).reshape(1, -1, *[1] * len(size))
    expected = ((position >= 0) & (position <= last)).all(1)
    found = inside_volume(field, tolerance=0)
    assert found.shape == (2, 1, *size)
    np.testing.assert_array_equal(found[:, 0].numpy(), expected)
    assert 0 < expected.mean() < 1


def test_inside_volume_of_the_identity_and_a_shift():
    """All voxels are inside without displacement in spite of rounding; a shift by 2 loses exactly two layers."""
    assert inside_volume(torch.full((1, 3, 4, 5, 6), 1e-4)).all()
    field = torch.zeros(1, 3, 4, 5, 6)
    field[:, 1] = 2
    inside = inside_volume(field)[0, 0]
    assert inside[:, :3].all()
    assert not inside[:, 3:].any()


@pytest.mark.parametrize("size", SIZES)
def test_jacobian_of_an_affine_field(size):
    """The determinant of an affine map is that of its linear part, at every voxel, borders too."""
    n = len(size)
    affine = torch.eye(n, n + 1, dtype=torch.float64) + torch.as_tensor(
        np.random.default_rng(0).normal(0, 0.2, (2, n, n + 1))
    )
    found = jacobian_determinant(affine_displacement(affine, size)).numpy()
    expected = np.linalg.det(affine[:, :, :-1].numpy()).reshape(-1, *[1] * len(size))
    np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), atol=1e-4)


def test_jacobian_of_a_folding_field():
    """A mirrored axis has determinant -1; a field that folds locally is negative there and 1 far away."""
    field = torch.zeros(1, 3, 12, 6, 5)
    field[0, 0] = 11 - 2 * torch.arange(12.0)[:, None, None]
    torch.testing.assert_close(jacobian_determinant(field), torch.full((1, 12, 6, 5), -1.0))
    local = torch.zeros(1, 3, 12, 6, 5)
    local[0, 0, 5], local[0, 0, 7] = 3, -3  # crosses over at 6: (7 - 3) - (5 + 3) = -4 over 2 voxels
    found = jacobian_determinant(local)[0]
    torch.testing.assert_close(found[6], torch.full((6, 5), -2.0))
    torch.testing.assert_close(found[:3], torch.ones(3, 6, 5))


def test_jacobian_sees_every_component():
    """A quadratic, coupled field against its analytic Jacobian (central differences are exact for quadratics)."""
    x, y, z = (torch.as_tensor(part, dtype=torch.float64) for part in np.indices((9, 8, 7)))
    field = torch.stack([0.02 * x * y, 0.01 * z**2 - 0.03 * x, 0.02 * y * z])[None]
    one = torch.ones_like(x)
    rows = [
        torch.stack([1 + 0.02 * y, 0.02 * x, 0 * one], -1),
        torch.stack([-0.03 * one, one, 0.02 * z], -1),
        torch.stack([0 * one, 0.02 * z, 1 + 0.02 * y], -1),
    ]
    expected = torch.linalg.det(torch.stack(rows, -2)).float()
    inner = (slice(1, -1),) * 3
    torch.testing.assert_close(jacobian_determinant(field)[0][inner].float(), expected[inner], atol=1e-5, rtol=0)


def test_jacobian_refuses_a_single_slice():
    """One voxel along an axis has no derivative; the message names the size."""
    with pytest.raises(InputError, match=r"2 voxels"):
        jacobian_determinant(torch.zeros(1, 3, 5, 1, 5))
