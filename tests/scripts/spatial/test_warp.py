# SPDX-License-Identifier: Apache-2.0

"""Geometry: one coordinate convention, rigid rotations, one interpolation."""

import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.transform import Rotation
from scripts.spatial import (
    affine_about_centre,
    affine_displacement,
    fuse,
    inside_volume,
    linear_matrix,
    voxel_grid,
    warp,
)
from scripts.spatial.level_grid import from_level, on_level
from torch.utils._python_dispatch import TorchDispatchMode

SIZES = [(9, 7, 5), (8, 13, 6), (11, 7)]
double = {"dtype": torch.float64}


def noise(*shape, seed=0):
    """Double-precision random numbers of 0..1."""
    return torch.as_tensor(np.random.default_rng(seed).random(shape))


def smooth_volume(size, sigma=2.0, seed=0):
    """An asymmetric smooth double-precision image of about 0..1."""
    image = ndimage.gaussian_filter(np.random.default_rng(seed).random(size), sigma)
    return (image - image.min()) / (image.max() - image.min())


def random_parameters(dims, count=3, seed=0):
    """Rotation, scale and shear as an affine head gives them, all different."""
    rng = np.random.default_rng(seed)
    angles = rng.uniform(-0.35, 0.35, (count, 3 if dims == 3 else 1))
    return angles, rng.uniform(0.75, 1.25, (count, dims)), rng.uniform(-0.17, 0.17, (count, dims * (dims - 1)))


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


@pytest.mark.parametrize("size", [*SIZES, (1, 6, 5), (6, 1, 1), (16, 1)])
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_zero_field_is_the_image(size, mode):
    """A zero field reproduces the image to rounding, on every size, also with axes of one voxel."""
    image = noise(2, 3, *size)
    field = torch.zeros(2, len(size), *size, **double)
    torch.testing.assert_close(warp(image, field, mode), image, atol=1e-12, rtol=0)
    torch.testing.assert_close(warp(image.float(), field.float(), mode), image.float(), atol=1e-5, rtol=0)


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


@settings(max_examples=15, deadline=None)
@given(size=st.lists(st.integers(4, 9), min_size=2, max_size=3), data=st.data())
def test_shift_by_whole_voxels_is_exact(size, data):
    """A shift by k voxels moves by exactly k: the overlap is equal voxel by voxel, zeros come in from outside."""
    shift = [data.draw(st.integers(-3, 3)) for _ in size]
    image = noise(1, 1, *size)
    field = torch.as_tensor(shift, **double).reshape(1, -1, *[1] * len(size)).expand(1, -1, *size)
    expected = np.zeros(size)
    target = tuple(slice(max(0, -k), n - max(0, k)) for k, n in zip(shift, size, strict=True))
    source = tuple(slice(max(0, k), n - max(0, -k)) for k, n in zip(shift, size, strict=True))
    expected[target] = image[0, 0].numpy()[source]
    np.testing.assert_allclose(warp(image, field)[0, 0].numpy(), expected, atol=1e-10)
    np.testing.assert_array_equal(warp(image, field, mode="nearest")[0, 0].numpy(), expected)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("mode", "order"), [("bilinear", 1), ("nearest", 0)])
@pytest.mark.parametrize(("padding", "scipy_padding"), [("border", "nearest"), ("zeros", "grid-constant")])
def test_random_field_against_scipy(size, mode, order, padding, scipy_padding):
    """Any field: interpolation, axis order and padding are scipy's, for every item and channel of a batch."""
    image = noise(2, 2, *size, seed=1)
    field = torch.as_tensor(np.random.default_rng(2).normal(scale=2, size=(2, len(size), *size)))
    found = warp(image, field, mode, padding)
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in size], indexing="ij"))
    for b in range(2):
        for c in range(2):
            expected = ndimage.map_coordinates(
                image[b, c].numpy(), grid + field[b].numpy(), order=order, mode=scipy_padding
            )
            np.testing.assert_allclose(found[b, c].numpy(), expected, atol=1e-9)


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


@pytest.mark.parametrize("size", [(24, 19, 14), (30, 21)])
def test_known_displacement_is_recovered(size):
    """A smooth field whose inverse was found by fixed-point iteration in numpy is undone by the warp."""
    n = len(size)
    rng = np.random.default_rng(1)
    inverse = np.stack([ndimage.gaussian_filter(rng.normal(size=size), 4) for _ in range(n)])
    inverse *= 2 / np.abs(inverse).max()
    grid = np.stack(np.meshgrid(*[np.arange(k, dtype=float) for k in size], indexing="ij"))
    field = np.zeros_like(inverse)
    for _ in range(40):  # u(p) = -v(p + u(p))
        field = -np.stack([ndimage.map_coordinates(part, grid + field, order=1, mode="nearest") for part in inverse])
    image = smooth_volume(size)
    moving = ndimage.map_coordinates(image, grid + inverse, order=3, mode="nearest")
    warped = warp(torch.as_tensor(moving)[None, None], torch.as_tensor(field)[None])[0, 0].numpy()
    core = (slice(3, -3),) * n
    assert np.abs(moving - image)[core].max() > 0.1
    assert np.abs(warped - image)[core].mean() < np.abs(moving - image)[core].mean() / 5


def random_affine(size, seed=0, batch=2):
    """A batch of moderate affine maps and its linear parts' parameters."""
    n = len(size)
    parts = [torch.as_tensor(part) for part in random_parameters(n, batch, seed)]
    translation = torch.as_tensor(np.random.default_rng(seed).uniform(-1, 1, (batch, n)))
    return affine_about_centre(linear_matrix(*parts), translation, size)


@pytest.mark.parametrize("size", SIZES)
def test_fuse_is_affine_of_moved_position(size):
    """fused(p) = A(p + u(p)) - p at every voxel, against a loop in numpy (and not u at the affine position)."""
    affine = random_affine(size)
    field = torch.as_tensor(np.random.default_rng(3).normal(size=(2, len(size), *size)))
    fused = fuse(affine, field).numpy()
    for b in range(2):
        matrix = affine[b].numpy()
        for p in np.ndindex(*size):
            moved = matrix[:, :-1] @ (np.array(p) + field[(b, slice(None), *p)].numpy()) + matrix[:, -1]
            np.testing.assert_allclose(fused[(b, slice(None), *p)], moved - p, atol=1e-10)


@pytest.mark.parametrize("size", [(24, 19, 15), (30, 22)])
def test_fused_warp_equals_two_warps(size):
    """Warping by the affine map and then by the field gives the fused warp up to the second interpolation."""
    image = torch.as_tensor(smooth_volume(size, 3.0))[None, None].expand(2, 1, *size)
    affine = random_affine(size, seed=8)
    rng = np.random.default_rng(1)
    field = np.stack([[ndimage.gaussian_filter(rng.normal(size=size), 4) for _ in size] for _ in range(2)])
    field = torch.as_tensor(field * 1.5 / np.abs(field).max())
    fused = fuse(affine, field)
    once = warp(image, fused)
    twice = warp(warp(image, affine_displacement(affine, size)), field)
    ones = torch.ones_like(image)
    known = (warp(ones, fused) * warp(warp(ones, affine_displacement(affine, size)), field)) > 1 - 1e-6
    assert known.double().mean() > 0.3
    assert (once - twice)[known].abs().max() < 0.03
    wrong_order = warp(warp(image, field), affine_displacement(affine, size))
    assert (once - twice)[known].abs().mean() < (once - wrong_order)[known].abs().mean() / 2


def test_warp_is_float32_under_autocast():
    """Under bfloat16 autocast a large volume is still sampled at float32 positions; half-precision fields too."""
    size = (260, 3, 3)
    image = torch.arange(size[0], dtype=torch.float32).reshape(1, 1, -1, 1, 1).expand(1, 1, *size)
    field = torch.full((1, 3, *size), 0.0)
    field[:, 0] = -0.25
    with torch.autocast("cpu", dtype=torch.bfloat16):
        warped = warp(image, field)
        half = warp(image.bfloat16(), field.bfloat16())
    assert warped.dtype == torch.float32
    torch.testing.assert_close(warped[:, :, 1:], image[:, :, 1:] - 0.25, atol=1e-3, rtol=0)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half[0, 0, 100, 1, 1], torch.tensor(99.75), atol=0.01, rtol=0)


def test_fused_positions_are_exact_under_autocast():
    """Autocast must not compute the affine positions of large volumes with bfloat16's 8 bits."""
    size = (260, 5, 5)
    affine = random_affine(size).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = affine_displacement(affine, size)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, affine_displacement(affine, size), atol=1e-3, rtol=0)


def test_nearest_keeps_label_codes():
    """Nearest sampling of a label map gives the original codes and nothing between them."""
    codes = torch.tensor([0.0, 205.0, 420.0, 421.0, 500.0, 550.0, 600.0, 820.0, 850.0])
    labels = codes[torch.randint(len(codes), (1, 1, 12, 10, 9), generator=torch.Generator().manual_seed(0))]
    field = torch.as_tensor(np.random.default_rng(0).normal(scale=2, size=(1, 3, 12, 10, 9)), dtype=torch.float32)
    warped = warp(labels, field, mode="nearest")
    assert set(warped.unique().tolist()) == set(codes.tolist())


@pytest.mark.parametrize("size", [(1, 9, 7), (9, 1, 7), (9, 7, 1)])
def test_single_slice_axis(size):
    """An axis of one voxel does not crash or spoil the warp: a shift along another axis is still exact."""
    image = noise(1, 1, *size).float()
    axis = size.index(7)
    field = torch.zeros(1, 3, *size)
    field[:, axis] = 2
    warped = warp(image, field)
    torch.testing.assert_close(warped.narrow(2 + axis, 0, 5), image.narrow(2 + axis, 2, 5), atol=1e-5, rtol=0)
    assert torch.isfinite(warped).all()


def test_warp_gradients():
    """The warp's gradients with respect to image and field, checked numerically at positions between voxels."""
    rng = np.random.default_rng(0)
    field = torch.as_tensor(rng.integers(-1, 2, (1, 3, 3, 4, 3)) + rng.uniform(0.2, 0.8, (1, 3, 3, 4, 3)))
    assert torch.autograd.gradcheck(warp, [noise(1, 1, 3, 4, 3).requires_grad_(), field.requires_grad_()], atol=1e-4)


@pytest.mark.parametrize("size", SIZES)
def test_voxel_grid_is_the_index(size):
    """Positions in the order of the array's axes."""
    np.testing.assert_array_equal(voxel_grid(size, torch.zeros(1)).numpy(), np.indices(size))


class Copies(TorchDispatchMode):
    """Counts tensors that are copied from the CPU to another device."""

    count = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        found = function(*arguments, **(options or {}))
        given = [argument for argument in arguments if isinstance(argument, torch.Tensor)]
        moved = isinstance(found, torch.Tensor) and found.device.type != "cpu"
        self.count += moved and any(argument.device.type == "cpu" for argument in given)
        return found


def test_no_constant_is_copied_to_a_device(monkeypatch):
    """On a GPU the host waits for each such copy; ``meta``, which autocast does not know, stands for a device."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    image, field = (torch.empty(1, channels, 8, 9, 10, device="meta") for channels in (1, 3))
    affine = torch.empty(1, 3, 4, device="meta")
    with Copies() as copies:
        fuse(affine, field)
        inside_volume(field)
        affine_about_centre(affine[..., :3], affine[..., 3], (8, 9, 10), (1.0, 2.0, 3.0))
        warp(image, field)
        from_level(on_level(field, (4, 5, 5), 2), (8, 9, 10), 2)
    assert copies.count == 0
    with Copies() as copies:
        torch.as_tensor([1.0, 2.0]).to(image)
    assert copies.count == 1
