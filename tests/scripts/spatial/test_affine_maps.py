# SPDX-License-Identifier: Apache-2.0

"""Affine maps: the order of their parts, rigid rotations, millimetres."""

import math

import numpy as np
import pytest
import torch
from random_volumes import noise, random_parameters, smooth_volume
from scipy import ndimage
from scipy.spatial.transform import Rotation
from scripts.spatial import affine_about_centre, affine_displacement, inside_volume, linear_matrix, warp

SIZES = [(9, 7, 5), (8, 13, 6), (11, 7)]
double = {"dtype": torch.float64}


def explicit_linear(rotation, scale, shear):
    """Shear * Scale * Rz * Ry * Rx of one item, written out in numpy."""
    if len(scale) == 2:
        ((c, s),) = [(math.cos(a), math.sin(a)) for a in rotation]
        skew = np.array([[1, math.tan(shear[0])], [math.tan(shear[1]), 1]])
        return skew @ np.diag(scale) @ np.array([[c, -s], [s, c]])
    (cx, sx), (cy, sy), (cz, sz) = [(math.cos(a), math.sin(a)) for a in rotation]
    rx = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    ry = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    rz = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    t = np.tan(shear)
    skew = np.array([[1, t[0], t[1]], [t[2], 1, t[3]], [t[4], t[5], 1]])
    return skew @ np.diag(scale) @ rz @ ry @ rx


@pytest.mark.parametrize("size", [*SIZES, (1, 6, 5)])
@pytest.mark.parametrize("spacing", [None, (0.5, 2.0, 3.0)])
def test_identity_matrix_is_the_image(size, spacing):
    """Identity parameters give the identity matrix, a zero displacement and the image, whatever the spacing."""
    n = len(size)
    count = 3 if n == 3 else 1
    shear = torch.zeros(2, n * n - n, **double)
    linear = linear_matrix(torch.zeros(2, count, **double), torch.ones(2, n, **double), shear)
    affine = affine_about_centre(linear, torch.zeros(2, n, **double), size, spacing and spacing[:n])
    torch.testing.assert_close(affine, torch.eye(n, n + 1, **double).expand(2, -1, -1), atol=1e-12, rtol=0)
    field = affine_displacement(affine, size)
    assert field.abs().max() < 1e-12
    image = noise(2, 1, *size)
    torch.testing.assert_close(warp(image, field), image, atol=1e-12, rtol=0)


@pytest.mark.parametrize("dims", [2, 3])
def test_linear_matrix_is_shear_scale_rz_ry_rx(dims):
    """Order, directions and the place of each shear, against matrices written out."""
    parameters = random_parameters(dims)
    found = linear_matrix(*(torch.as_tensor(part) for part in parameters)).numpy()
    for k in range(len(found)):
        np.testing.assert_allclose(found[k], explicit_linear(*(part[k] for part in parameters)), atol=1e-12)


def test_rotation_follows_scipy():
    """Rz Ry Rx are extrinsic rotations about x, then y, then z, counter-clockwise, as scipy's Euler angles 'xyz'."""
    angles = np.random.default_rng(3).uniform(-0.5, 0.5, (4, 3))
    found = linear_matrix(torch.as_tensor(angles), torch.ones(4, 3, **double), torch.zeros(4, 6, **double))
    np.testing.assert_allclose(found, Rotation.from_euler("xyz", angles).as_matrix(), atol=1e-12)


@pytest.mark.parametrize("dims", [2, 3])
def test_linear_matrix_gradients(dims):
    """Differentiable in all three, checked numerically."""
    parts = [torch.as_tensor(part).requires_grad_() for part in random_parameters(dims)]
    assert torch.autograd.gradcheck(linear_matrix, parts)


@pytest.mark.parametrize(("size", "spacing"), [((20, 11, 7), (0.7, 1.5, 3)), ((9, 16), (2.0, 0.6)), ((9, 7, 5), None)])
def test_rotation_is_rigid_in_millimetres(size, spacing):
    """On a non-cubic, anisotropic grid a rotation keeps all distances in mm and the centre of the volume in place."""
    n = len(size)
    turn = torch.full((1, 3 if n == 3 else 1), 0.3, **double)
    linear = linear_matrix(turn, torch.ones(1, n, **double), torch.zeros(1, n * n - n, **double))
    affine = affine_about_centre(linear, torch.zeros(1, n, **double), size, spacing)[0].numpy()
    points = np.random.default_rng(0).random((6, n)) * (np.array(size) - 1)
    moved = points @ affine[:, :n].T + affine[:, n]
    unit = np.array(spacing or [1.0] * n)

    def distances(p):
        return np.linalg.norm((p[:, None] - p) * unit, axis=-1)

    np.testing.assert_allclose(distances(moved), distances(points), atol=1e-10)
    centre = (np.array(size) - 1) / 2
    np.testing.assert_allclose(affine[:, :n] @ centre + affine[:, n], centre, atol=1e-10)
    assert np.abs(moved - points).max() > 0.5


def test_translation_is_in_millimetres():
    """A translation of (3, 2, 1) mm is that many millimetres along each axis, whatever the voxels are."""
    spacing = (0.5, 2.0, 4.0)
    affine = affine_about_centre(torch.eye(3)[None], torch.tensor([[3.0, 2.0, 1.0]]), (8, 9, 10), spacing)
    torch.testing.assert_close(affine[0, :, 3], torch.tensor([6.0, 1.0, 0.25]))
    torch.testing.assert_close(affine[0, :, :3], torch.eye(3))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("kind", ["rotation", "scale", "shear", "translation", "all"])
def test_known_affine_is_undone(dims, kind):
    """An image deformed by scipy with a known map is brought back by the warp with that map (non-cubic, asymmetric)."""
    size, spacing = (26, 20, 17)[:dims], (1.0, 1.4, 0.8)[:dims]
    rotation, scale, shear = (part[0] for part in random_parameters(dims, 1, seed=5))
    translation = np.array([1.5, -2.2, 0.9])[:dims]
    identity = {"rotation": 0 * rotation, "scale": 0 * scale + 1, "shear": 0 * shear, "translation": 0 * translation}
    wanted = {"rotation": rotation, "scale": scale, "shear": shear, "translation": translation}
    used = wanted if kind == "all" else {**identity, kind: wanted[kind]}
    parts = [torch.as_tensor(used[name])[None] for name in ("rotation", "scale", "shear")]
    affine = affine_about_centre(linear_matrix(*parts), torch.as_tensor(used["translation"])[None], size, spacing)

    unit, centre = np.diag(spacing), (np.array(size) - 1) / 2
    linear = np.linalg.inv(unit) @ explicit_linear(used["rotation"], used["scale"], used["shear"]) @ unit
    offset = np.linalg.inv(unit) @ used["translation"] + centre - linear @ centre
    np.testing.assert_allclose(affine[0].numpy(), np.c_[linear, offset], atol=1e-6)

    image = smooth_volume(size)
    back = np.linalg.inv(linear)
    moving = ndimage.affine_transform(image, back, -back @ offset, order=3, mode="nearest")
    field = affine_displacement(affine, size)
    warped = warp(torch.as_tensor(moving)[None, None], field)[0, 0].numpy()
    positions = inside_volume(field)[0, 0].numpy()
    core = np.zeros(size, bool)
    core[(slice(4, -4),) * dims] = True
    core &= positions
    assert core.sum() > 50
    before, after = np.abs(moving - image)[core], np.abs(warped - image)[core]
    assert before.mean() > 0.01
    assert after.mean() < before.mean() / 2
