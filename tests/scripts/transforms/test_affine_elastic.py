# SPDX-License-Identifier: Apache-2.0

"""Spatial augmentation: one map for all keys, within its bounds, reproducible."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d
from scripts.errors import InputError
from scripts.spatial import jacobian_determinant
from scripts.transforms import RandAffineElasticd, smooth


def test_smooth_is_a_gaussian_filter_with_zeros_outside():
    field = np.random.default_rng(0).normal(size=(2, 30, 25, 20))
    expected = field
    for axis in (1, 2, 3):
        expected = gaussian_filter1d(expected, 2.5, axis=axis, mode="constant", truncate=20)
    assert np.allclose(smooth(torch.as_tensor(field), 2.5), expected, atol=1e-4)


@pytest.mark.parametrize("size", [(20, 24, 18), (24, 20)])
def test_same_map_for_every_key_and_same_seed_same_map(size):
    image = torch.rand(1, *size)
    transform = RandAffineElasticd(["image", "moving"])
    transform.set_random_state(seed=3)
    first = transform({"image": image, "moving": 2 * image, "other": "kept"})
    assert torch.allclose(2 * first["image"], first["moving"], atol=1e-5)
    assert first["other"] == "kept"
    assert not torch.allclose(first["image"], image)
    transform.set_random_state(seed=3)
    assert torch.equal(transform({"image": image, "moving": image})["image"], first["image"])
    transform.set_random_state(seed=4)
    assert not torch.allclose(transform({"image": image, "moving": image})["image"], first["image"])


def test_a_map_of_its_own_for_every_key_where_it_is_not_shared():
    image = torch.rand(1, 20, 24, 18)
    transform = RandAffineElasticd(["image", "moving"], shared=False)
    transform.set_random_state(seed=3)
    found = transform({"image": image, "moving": image})
    assert not torch.allclose(found["image"], found["moving"], atol=0.05)
    transform.set_random_state(seed=3)
    again = transform({"image": image, "moving": image})
    assert all(torch.equal(found[key], again[key]) for key in found)


def test_nothing_drawn_nothing_changed():
    image = torch.rand(1, 9, 8, 7)
    still = RandAffineElasticd("image", rotate=0, scale=0, shear=0, translate=0, magnitude=(0, 0))
    assert torch.allclose(still({"image": image})["image"], image, atol=1e-5)
    never = RandAffineElasticd("image", prob=0)
    assert never({"image": image})["image"] is image


def test_affine_part_stays_within_its_bounds_in_millimetres():
    """A rotation alone keeps distances in millimetres on an anisotropic grid; a scale alone stays in its range."""
    spacing = torch.tensor([1.0, 2.0, 4.0])
    turn = RandAffineElasticd("x", scale=0, shear=0, translate=0, magnitude=(0, 0), spacing=spacing.tolist())
    turn.set_random_state(seed=0)
    displacement = turn.draw_map((12, 10, 8))[0]
    grid = torch.stack(torch.meshgrid(*(torch.arange(float(n)) for n in (12, 10, 8)), indexing="ij"))
    points = ((grid + displacement) * spacing.reshape(3, 1, 1, 1)).flatten(1)
    before = (grid * spacing.reshape(3, 1, 1, 1)).flatten(1)
    assert torch.allclose(torch.pdist(points.T[::37]), torch.pdist(before.T[::37]), atol=1e-3)
    grow = RandAffineElasticd("x", rotate=0, shear=0, translate=0, magnitude=(0, 0))
    for seed in range(5):
        grow.set_random_state(seed=seed)
        determinant = jacobian_determinant(grow.draw_map((9, 9, 9)))
        assert 0.75**3 - 1e-3 <= determinant.min() <= determinant.max() <= 1.25**3 + 1e-3


def test_impossible_bounds_are_refused():
    with pytest.raises(InputError, match="scale"):
        RandAffineElasticd("image", scale=1.5)
    with pytest.raises(InputError, match="sigma"):
        RandAffineElasticd("image", sigma=(0, 1))
