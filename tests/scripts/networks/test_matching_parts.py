# SPDX-License-Identifier: Apache-2.0
"""The global and the local part of Z-matching find known maps from features that tell places apart."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from scripts.errors import InputError
from scripts.networks import GlobalMatchingHead, LevelDescriptors, LocalMatchingHead, UNetBackbone
from scripts.networks.global_matching import ROWS, most_similar
from scripts.spatial import (
    affine_about_centre,
    affine_displacement,
    box_mean,
    compose,
    inverse_affine,
    linear_matrix,
    warp,
)
from torch import nn

SIZE = (40, 48, 44)
CHANNELS = (12, 12, 12, 12)


def scan(size=SIZE, seed=0):
    """Features of a scan that differ from place to place, smooth over some voxels."""
    return box_mean(torch.randn(1, 12, *size, generator=torch.Generator().manual_seed(seed)), 6)


def levels(full, shown=None):
    """What a backbone with ideal features would give of an image that shows tissue everywhere, or there."""
    half, quarter = nn.functional.avg_pool3d(full, 2), nn.functional.avg_pool3d(full, 4)
    image = torch.ones(1, 1, *SIZE) if shown is None else shown.float()
    return SimpleNamespace(image=image, local=full, decoder=(quarter, half))


def of_backbone(backbone, image):
    features = backbone.levels(image)
    return SimpleNamespace(image=image, local=features[1], decoder=features[-2:])


def transparent(descriptors):
    for projection in descriptors.projections:
        nn.init.dirac_(projection.weight)
        nn.init.zeros_(projection.bias)


def turned(degrees=0.0, scale=1.0, shift=(0.0, 0.0, 0.0), axis=0):
    angles = torch.zeros(1, 3)
    angles[0, axis] = math.radians(degrees)
    linear = linear_matrix(angles, torch.full((1, 3), scale), torch.zeros(1, 6))
    return affine_about_centre(linear, torch.tensor([shift]), SIZE)


def find(affine):
    """The global match of a scan, and of the same scan seen through a map: that map."""
    head = GlobalMatchingHead(CHANNELS, strides=(4, 2), widths=(12, 12))
    transparent(head.places)
    moving = scan()
    fixed = warp(moving, affine_displacement(affine, SIZE))
    shown = warp(torch.ones(1, 1, *SIZE), affine_displacement(affine, SIZE)) > 0.99
    return head(levels(fixed, shown), levels(moving))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_rotation_is_found(axis):
    true = turned(15, axis=axis)
    found = find(true)
    left = found["affine"][0, :, :3] @ torch.linalg.inv(true[0, :, :3])
    u, _, v = torch.linalg.svd(left)
    assert math.degrees(math.acos(min(1.0, (float(torch.trace(u @ v)) - 1) / 2))) < 1.0
    assert found["agreement"] > 0.6
    assert found["inliers"] > 0.7
    assert found["conditioning"] > 0.4


@pytest.mark.parametrize("scale", [0.85, 1.2])
def test_a_scale_is_found(scale):
    found = find(turned(scale=scale))["affine"]
    assert torch.linalg.det(found[0, :, :3]).pow(1 / 3) == pytest.approx(scale, rel=0.02)


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_a_shift_is_found_where_a_part_is_outside(share):
    """With half of one scan not in the other as well."""
    true = turned(shift=(share * SIZE[0], 0.0, 0.0))
    centre = torch.tensor([(n - 1) / 2 for n in SIZE])
    found, expected = (m[0, :, :3] @ centre + m[0, :, 3] for m in (find(true)["affine"], true))
    assert (found - expected).norm() < 0.02 * SIZE[0]


def test_candidates_beyond_near_do_not_move_a_place():
    """A descriptor that is found twice, four voxels apart, is looked for at one of the places, not between them."""
    head = GlobalMatchingHead(CHANNELS, strides=(1,), widths=(12,), stride=1, near=3.0)
    wide = GlobalMatchingHead(CHANNELS, strides=(1,), widths=(12,), stride=1, near=6.0)
    line = torch.arange(24.0)
    position = torch.stack([line, (line * 7) % 5, (line * 3) % 4], dim=1)
    unit = nn.functional.normalize(torch.randn(24, 64, generator=torch.Generator().manual_seed(0)), dim=1)
    unit[9] = unit[5]
    position[9] = position[5] + torch.tensor([4.0, 0.0, 0.0])
    everywhere = torch.ones(24, dtype=torch.bool)
    found = [each._match(unit, unit, everywhere, everywhere, position, 24)[0] for each in (head, wide)]
    shifts = [(affine - torch.eye(3, 4)).abs().max() for affine in found]
    assert shifts[0] < shifts[1]


def test_the_map_back_is_found_by_itself():
    """From the moving scan's places: the inverse, and not computed while training."""
    head = GlobalMatchingHead(CHANNELS, strides=(4, 2), widths=(12, 12)).eval()
    transparent(head.places)
    true, moving = turned(10, shift=(4.0, 0.0, -3.0)), scan()
    fixed = warp(moving, affine_displacement(true, SIZE))
    found = head(levels(fixed), levels(moving))
    points = torch.tensor([[10.0, 30.0], [12.0, 40.0], [10.0, 30.0]])
    there = true[0, :, :3] @ points + true[0, :, 3:]
    back = found["backward_affine"][0, :, :3] @ there + found["backward_affine"][0, :, 3:]
    assert (back - points).norm(dim=0).max() < 1.5
    assert not torch.equal(found["backward_affine"], inverse_affine(found["affine"]))
    assert "backward_affine" not in head.train()(levels(fixed), levels(moving))


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize(
    ("asked", "places"), [(1, 70), (ROWS, 70), (ROWS + 1, 70), (3 * ROWS - 5, 70), (9, 64 * 40), (9, 64 * 40 + 3)]
)
def test_parts_of_the_places_at_a_time_find_what_all_together_find(asked, places, count):
    generator = torch.Generator().manual_seed(0)
    one, other = torch.randn(asked, 6, generator=generator), torch.randn(places, 6, generator=generator)
    whole = (one @ other.T).topk(count, dim=1)
    similarity, index = most_similar(one, other, count)
    assert torch.equal(index, whole.indices)
    torch.testing.assert_close(similarity, whole.values)


def test_strangers_do_not_agree():
    head = GlobalMatchingHead(CHANNELS, strides=(4, 2), widths=(12, 12))
    transparent(head.places)
    found = head(levels(scan(seed=1)), levels(scan(seed=2)))
    assert found["inliers"] < 0.3
    assert found["agreement"] < 0.75 * find(turned(5))["agreement"]


def test_without_tissue_the_map_is_the_identity_and_not_trusted():
    head = GlobalMatchingHead(CHANNELS, strides=(4, 2), widths=(12, 12))
    nothing = torch.zeros(1, 1, *SIZE)
    found = head(levels(scan(), nothing), levels(scan(), nothing))
    torch.testing.assert_close(found["affine"][0], torch.eye(3, 4))
    assert found["agreement"] == 0
    assert found["inliers"] == 0
    assert found["conditioning"] == 0


def wave(amplitude=2.5):
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(1, 3, 4, 4, 4, generator=generator) * amplitude
    return nn.functional.interpolate(noise, size=SIZE, mode="trilinear", align_corners=True)


def test_the_local_part_finds_a_smooth_map():
    """Alone, beginning with a part of it, and started with the truth it stays there."""
    head = LocalMatchingHead(CHANNELS, widths=(12, 12, 12), temperature=0.02)
    transparent(head.shapes)
    moving, true = scan(), wave()
    fixed = warp(moving, true, padding_mode="border")
    eye = torch.eye(3, 4)[None]
    inner = (..., *(slice(6, n - 6) for n in SIZE))

    def error(start):
        found = head(levels(fixed), levels(moving), eye, start=start)["local_displacement"]
        assert found.shape == true.shape
        return (found - true)[inner].abs().mean() / true[inner].abs().mean()

    with torch.no_grad():
        alone, helped, stays = error(None), error(0.5 * true), error(true)
    assert max(alone, helped, stays) < 0.15


@pytest.mark.parametrize("both_ways", [False, True])
def test_the_local_part_works_in_the_affine_frame(both_ways):
    head = LocalMatchingHead(CHANNELS, widths=(12, 12, 12), temperature=0.02)
    transparent(head.shapes)
    moving, affine = scan(), turned(12)
    fixed = warp(moving, affine_displacement(affine, SIZE), padding_mode="border")
    inner = (..., *(slice(10, n - 10) for n in SIZE))
    with torch.no_grad():
        found = (head.both_ways if both_ways else head)(levels(fixed), levels(moving), affine)
    assert found["local_displacement"][inner].abs().mean() < 0.15


def test_both_ways_find_a_smooth_map_and_lead_back():
    """Of noisy features, alone and begun with a part of it: nearer to the truth, and closer together there and back."""
    head = LocalMatchingHead(CHANNELS, widths=(12, 12, 12), temperature=0.02)
    transparent(head.shapes)
    still, true = scan(), wave()
    noise = torch.randn(2, 12, *SIZE, generator=torch.Generator().manual_seed(5))
    seen = [
        levels(image + 0.7 * image.std() * box_mean(noise[k : k + 1], 2) / box_mean(noise, 2).std())
        for k, image in enumerate([warp(still, true, padding_mode="border"), still])
    ]
    eye, inner = torch.eye(3, 4)[None], (..., *(slice(6, n - 6) for n in SIZE))

    def off(match, start):
        there, back = (
            match(*pair, eye, start=begun)["local_displacement"]
            for pair, begun in ((seen, start), (seen[::-1], None if start is None else -start))
        )
        return (there - true)[inner].abs().mean(), compose(back, there)[inner].abs().mean()

    with torch.no_grad():
        for start in (None, 0.5 * true):
            (one_way, apart), (both_ways, together) = off(head, start), off(head.both_ways, start)
            assert both_ways < one_way < 0.5 * true[inner].abs().mean()
            assert together < 0.75 * apart


def test_of_one_level_both_ways_are_one():
    """The finest level is matched from fixed to moving alone."""
    head = LocalMatchingHead(CHANNELS, strides=(1,), radii=(2,), widths=(12,))
    fixed, moving, affine = levels(scan(seed=1)), levels(scan()), turned(5)
    with torch.no_grad():
        found, expected = (match(fixed, moving, affine)["local_displacement"] for match in (head.both_ways, head))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("shift", [(9.0, -12.0, 0.0), (0.0, 0.0, 0.0)])
def test_the_shift_from_which_matching_goes_best_is_found(shift):
    """To a voxel of the coarsest level, whatever lies beside; what is beyond the largest one is not looked at."""
    head, full = LocalMatchingHead(CHANNELS, (4, 2, 1), widths=(12, 12, 12)), scan()
    transparent(head.shapes)
    seen, flat = warp(full, affine_displacement(turned(shift=shift), SIZE)), torch.zeros(1, 3, 4)
    one, other = levels(seen), levels(full)
    found = head.best_start(one, other, None, gain=0.01, largest=0.25)
    assert torch.equal(head.best_start(one, other, flat, gain=0.01, largest=0.25), found)
    assert torch.equal(found[:, :, :3], torch.eye(3)[None])
    assert ((found[0, :, 3] - torch.tensor(shift)).abs() <= 4).all()
    assert torch.equal(found[0, :, 3] % 4, torch.zeros(3))
    back = head.best_start(other, one, flat, gain=0.01, largest=0.25)
    assert torch.equal(back[0, :, 3], -found[0, :, 3])  # the same way
    near = head.best_start(one, other, flat, gain=0.01, largest=0.1)  # 4.0, 4.8 and 4.4 voxels
    assert near[0, :, 3].abs().max() <= 4
    assert torch.equal(head.best_start(one, other, flat, gain=2.0, largest=0.25), turned())


@pytest.mark.parametrize(("degrees", "kept"), [(30, True), (-30, False), (math.nan, False)])
def test_a_map_in_doubt_is_kept_where_no_shift_makes_the_images_more_alike(degrees, kept):
    head, full = LocalMatchingHead(CHANNELS, (4, 2, 1), widths=(12, 12, 12)), scan()
    transparent(head.shapes)
    seen, doubted = warp(full, affine_displacement(turned(30), SIZE)), turned(degrees)
    found = head.best_start(levels(seen), levels(full), doubted, gain=0.01, largest=0.25)
    assert (found is doubted) is kept
    assert kept or torch.equal(found[:, :, :3], torch.eye(3)[None])


def test_the_middle_decides_which_shift_is_taken(monkeypatch):
    """Of two parts of a scan the larger one, around the other, is not shifted: by weights that are even it decides."""
    head = LocalMatchingHead(CHANNELS, (4, 2, 1), widths=(12, 12, 12))
    transparent(head.shapes)
    around, within = scan(seed=0), scan(seed=1)
    inner = torch.zeros(1, 1, *SIZE)
    inner[..., 10:30, 12:36, 11:33] = 1
    seen = torch.where(inner > 0, warp(within, affine_displacement(turned(shift=(0.0, 12.0, 0.0)), SIZE)), around)
    moving = torch.where(warp(inner, affine_displacement(turned(shift=(0.0, -12.0, 0.0)), SIZE)) > 0, within, around)
    assert inner.mean() < 0.2
    pair, rule = (levels(seen), levels(moving), torch.zeros(1, 3, 4)), {"gain": 0.01, "largest": 0.25}
    found = head.best_start(*pair, **rule)
    assert 4 <= found[0, 1, 3] <= 12
    assert found[0, [0, 2], 3].abs().max() == 0
    monkeypatch.setattr("scripts.networks.local_matching.middle", lambda size, like: like.new_ones(1, 1, *size))
    assert torch.equal(head.best_start(*pair, **rule), turned())


@pytest.mark.parametrize("size", [(17, 22, 13), (24, 16, 32), (9, 11)])
@pytest.mark.parametrize("strides", [(4, 2, 1), (4, 2), (2, 1), (1,)])
def test_any_size_and_every_parameter_learns(size, strides):
    dims = len(size)
    backbone = UNetBackbone(dims, 1, (4, 4, 8, 8))
    head = LocalMatchingHead((4, 4, 8, 8), strides, [1] * len(strides), [4] * len(strides), spatial_dims=dims)
    images = torch.rand(2, 1, *size, generator=torch.Generator().manual_seed(0))
    fixed, moving = (of_backbone(backbone, image[None]) for image in images)
    found = head(fixed, moving, None)["local_displacement"]
    assert found.shape == (1, dims, *size)
    found.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters() if p.dim() > 1)


def test_levels_that_are_not_there_are_refused():
    with pytest.raises(InputError, match="strides"):
        LevelDescriptors((4, 8), (4, 2), (8, 8))
    with pytest.raises(InputError, match="width"):
        LevelDescriptors((4, 8, 8), (2, 1), (8,))
    assert LevelDescriptors((4, 8), (4, 2, 1), (8, 8, 8)).strides == (1,)
    with pytest.raises(InputError, match="coarse to fine"):
        LocalMatchingHead((4, 8, 8, 8), strides=(1, 2), radii=(1, 1), widths=(4, 4))
