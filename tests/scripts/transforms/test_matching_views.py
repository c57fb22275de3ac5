# SPDX-License-Identifier: Apache-2.0
"""Views of scans: the map that is said to be known is the true one; the same seed draws the same."""

from __future__ import annotations

import pytest
import torch
from scripts.errors import InputError
from scripts.spatial import box_mean, fuse, inside_volume, warp
from scripts.spatial.linear_maps import between_lengths
from scripts.transforms import RandMatchingViewsd

SIZE = (24, 28, 20)


def scan(size=(40, 36, 30), seed=0):
    return box_mean(torch.rand(1, 1, *size, generator=torch.Generator().manual_seed(seed)), 6)[0]


def draw(seed=0, data=None, **settings):
    views = RandMatchingViewsd(SIZE, **settings)
    views.set_random_state(seed=seed)
    one = scan()
    return views({"image": one, "moving": one, "same": True, "zoom_out": 1.5, **(data or {})})


@pytest.mark.parametrize("seed", range(5))
def test_the_known_map_is_the_true_one(seed):
    """Where it leads to places of the moving view that lie in the scan, both views show the same."""
    views = draw(seed)
    known = views["known_displacement"][None]
    found = warp(views["moving"][None], known)
    shown = draw(seed, {"image": torch.ones(1, 40, 36, 30), "moving": torch.ones(1, 40, 36, 30)})
    inside = inside_volume(known) & (shown["image"][None] > 0.99) & (warp(shown["moving"][None], known) > 0.99)
    assert inside.float().mean() > 0.2
    spread = views["image"][None][inside].std()
    assert (found - views["image"][None])[inside].abs().mean() < 0.25 * spread
    assert (views["moving"][None] - views["image"][None])[inside].abs().mean() > 0.5 * spread


def test_scans_are_turned_in_millimetres():
    """Not in voxels: of those that are four times as long along one axis a rotation would be a shear."""
    turns = {"spacing": [1.0, 1.0, 4.0], "scale": 0.0, "shear": 0.0, "elastic": 0.0, "disturbance": 0.0}
    linear = draw(**turns)["known_affine"][None, :, :3]
    of_lengths = between_lengths(linear, turns["spacing"])
    torch.testing.assert_close(torch.linalg.svdvals(of_lengths), torch.ones(1, 3), atol=1e-4, rtol=0)
    assert torch.linalg.svdvals(linear).max() > 1.1
    plain = draw(**{**turns, "spacing": None})["known_affine"][None, :, :3]
    torch.testing.assert_close(torch.linalg.svdvals(plain), torch.ones(1, 3), atol=1e-4, rtol=0)


def test_start_lies_in_the_affine_frame():
    """Without elastic map and disturbance it is zero, and the affine map alone is the whole one."""
    views = draw(elastic=0.0, disturbance=0.0)
    assert not views["start_displacement"].any()
    torch.testing.assert_close(
        fuse(views["known_affine"][None], views["start_displacement"][None])[0], views["known_displacement"]
    )


def test_scans_of_any_size_give_views_of_one_size():
    views = draw(data={"moving": scan((12, 60, 33)), "same": False})
    assert views["image"].shape == views["moving"].shape == (1, *SIZE)
    assert views["known"] == 0
    assert draw()["known"] == 1


def test_the_same_seed_draws_the_same():
    first, again, other = draw(3), draw(3), draw(4)
    for key in ("image", "moving", "known_affine", "known_displacement", "start_displacement"):
        assert torch.equal(first[key], again[key])
        assert not torch.equal(first[key], other[key])


def test_zoom_out_shows_more():
    """A larger factor samples coarser: neighbouring voxels differ more."""
    settings = {"rotate": 0.0, "scale": 0.0, "shear": 0.0, "translate": 0.0, "elastic": 0.0}
    near = torch.stack([draw(seed, {"zoom_out": 1.0}, **settings)["image"] for seed in range(6)])
    far = torch.stack([draw(seed, {"zoom_out": 4.0}, **settings)["image"] for seed in range(6)])
    assert near.diff(dim=-1).abs().mean() < far.diff(dim=-1).abs().mean()


def test_impossible_settings_are_refused():
    with pytest.raises(InputError, match="control"):
        RandMatchingViewsd(SIZE, control=0)
