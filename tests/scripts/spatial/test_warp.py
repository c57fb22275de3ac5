# SPDX-License-Identifier: Apache-2.0

"""Warps: one coordinate convention, one interpolation, an affine map and a field fused."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_volumes import noise, random_parameters, smooth_volume
from scipy import ndimage
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


@pytest.mark.parametrize("size", [*SIZES, (1, 6, 5), (6, 1, 1), (16, 1)])
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_zero_field_is_the_image(size, mode):
    """A zero field reproduces the image to rounding, on every size, also with axes of one voxel."""
    image = noise(2, 3, *size)
    field = torch.zeros(2, len(size), *size, **double)
    torch.testing.assert_close(warp(image, field, mode), image, atol=1e-12, rtol=0)
    torch.testing.assert_close(warp(image.float(), field.float(), mode), image.float(), atol=1e-5, rtol=0)


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
