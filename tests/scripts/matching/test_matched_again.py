# SPDX-License-Identifier: Apache-2.0
"""A pair matched again: until it settles, by a shift where its map is in doubt, mirrored, there and back."""

from __future__ import annotations

import pytest
import torch
from scripts.matching import MatchingInferer
from scripts.networks import (
    GVSL,
    DeformableHead,
    Levels,
    LocalMatchingHead,
    RestorationHead,
    UNetBackbone,
    ZMatchingHead,
)
from scripts.spatial import affine_about_centre, affine_displacement, fuse, linear_matrix, warp


class Turns(torch.nn.Module):
    """A global matching that finds half of the rotation about the last axis that is left."""

    def forward(self, fixed, moving, known=None):
        angle = 0.5 * self.left(fixed.image, moving.image)
        likeness = (1 - (fixed.image - moving.image).abs().mean()).reshape(1)
        return {"affine": turn(angle), "backward_affine": turn(-angle), "agreement": likeness}

    @staticmethod
    def left(fixed, moving):
        """The angle between two bars, which begin and end at the volume's middle."""

        def angle(image):
            place = image[0, 0].nonzero().double() - 11.5
            return 0.5 * torch.atan2(
                2 * (place[:, 0] * place[:, 1]).mean(), (place[:, 0] ** 2 - place[:, 1] ** 2).mean()
            )

        return float(angle(moving > 0.5) - angle(fixed > 0.5))


def turn(angle):
    return affine_about_centre(
        linear_matrix(torch.tensor([[0.0, 0.0, angle]]), torch.ones(1, 3), torch.zeros(1, 6)),
        torch.zeros(1, 3),
        [24] * 3,
    )


@pytest.mark.parametrize(("matches", "share"), [(1, 0.5), (2, 0.75), (3, 0.875), (9, 0.9375)])
def test_each_match_finds_what_the_one_before_has_left(matches, share):
    """
    A head that finds half of a rotation; all maps, there and back, are composed, until one changes by less than 0.03.
    """
    network, fixed = turning(lambda *_: None), bar()
    moving = warp(fixed, affine_displacement(turn(-0.4), [24] * 3))
    with torch.no_grad():
        found = MatchingInferer(global_matches=matches)(fixed, network, moving)
    for name, angle in (("affine", 0.4 * share), ("backward_affine", -0.4 * share)):
        torch.testing.assert_close(found[name][..., :3], turn(angle)[..., :3], atol=0.02, rtol=0)
    torch.testing.assert_close(found["displacement"], fuse(found["affine"], found["local_displacement"]))
    torch.testing.assert_close(found["warped"], warp(moving, found["displacement"]))


def bar():
    image = torch.zeros(1, 1, 24, 24, 24)
    image[..., 2:22, 10:14, 10:14] = 1
    return image


def turning(hook):
    """A network whose global matching is :class:`Turns`, and what a hook makes of its answer."""
    torch.manual_seed(0)
    head = ZMatchingHead(Turns(), DeformableHead(4, 8))
    head.global_matching.register_forward_hook(hook)
    return GVSL(UNetBackbone(features=(4, 8)), head, RestorationHead(4)).eval()


def test_scans_that_stand_alike_are_matched_once():
    glances = []
    network = turning(lambda *_: glances.append(1))
    with torch.no_grad():
        found = MatchingInferer(global_matches=5)(bar(), network, bar())
    assert len(glances) == 1
    torch.testing.assert_close(found["affine"], turn(0.0), atol=1e-4, rtol=0)


def test_a_pair_settles_alike_alone_and_in_a_batch():
    """One that stands alike beside one that is turned: before, both were matched as often as the slower one."""
    glances = []
    network, fixed = turning(lambda *_: glances.append(1)), bar()
    moving = torch.cat([fixed, warp(fixed, affine_displacement(turn(-0.4), [24] * 3))])
    with torch.no_grad():
        together = MatchingInferer(global_matches=5)(torch.cat([fixed, fixed]), network, moving)
        count = len(glances)
        alone = [MatchingInferer(global_matches=5)(fixed, network, one) for one in moving.split(1)]
    assert len(glances) == 2 * count
    for key in ("affine", "displacement", "warped", "agreement"):
        torch.testing.assert_close(together[key], torch.cat([found[key] for found in alone]))


def test_what_is_too_much_of_a_turn_is_told_in_millimetres():
    """25 degrees about an axis of fine voxels stretch those that are six times as long along another to 2.7 times."""
    spacing = torch.tensor([1.5, 9.0, 1.5])
    of_voxels = turn(0.436)
    of_voxels[:, :, :3] = of_voxels[:, :, :3] * spacing / spacing[:, None]
    for given, again in ((None, False), (spacing.tolist(), True)):
        glances = []

        def told(_, __, found, glances=glances):
            glances.append(1)
            return {**found, "affine": of_voxels if len(glances) == 1 else turn(0.0)}

        with torch.no_grad():
            MatchingInferer(global_matches=2, spacing=given)(bar(), turning(told), bar())
        assert (len(glances) == 2) == again


def test_pairs_of_a_batch_are_split_and_refined_each_by_itself():
    """One shows only air, of which no affine map can be fitted, and is done at once."""
    fixed = torch.cat([bar(), torch.zeros_like(bar())])
    moving = torch.cat([warp(bar(), affine_displacement(turn(-0.2), [24] * 3)), bar()])
    match = MatchingInferer(refine=8, whole_affine={"scale": 2.0, "points": 2000})
    network = turning(lambda *_: None)
    with torch.no_grad():
        together = match(fixed, network, moving)
        alone = [match(*pair) for pair in zip(fixed.split(1), [network] * 2, moving.split(1), strict=True)]
    for key in ("affine", "matched_affine", "displacement", "warped"):
        torch.testing.assert_close(together[key], torch.cat([found[key] for found in alone]), equal_nan=True)
    assert not torch.equal(together["affine"][0], together["matched_affine"][0])


@pytest.mark.parametrize(("lost", "share"), [(0.2, 0.5), (0.0, 0.75)])
def test_a_match_that_agrees_less_is_not_taken(lost, share):
    """Neither its map, nor what was found with it."""
    told = iter([0.9, 0.9 - lost])
    network = turning(lambda _, __, found: {**found, "agreement": torch.tensor([next(told)])})
    fixed = bar()
    moving = warp(fixed, affine_displacement(turn(-0.4), [24] * 3))
    with torch.no_grad():
        found = MatchingInferer(global_matches=2)(fixed, network, moving)
    assert found["agreement"] == pytest.approx(0.9)
    for name, angle in (("affine", 0.4 * share), ("backward_affine", -0.4 * share)):
        torch.testing.assert_close(found[name][..., :3], turn(angle)[..., :3], atol=0.02, rtol=0)
    torch.testing.assert_close(found["displacement"], fuse(found["affine"], found["local_displacement"]))


def test_a_map_that_cannot_be_ends_it():
    """Nothing is turned by a map that mirrors: the first answer stays."""
    glances = []

    def mirrored(_, __, found):
        glances.append(1)
        return {**found, "affine": found["affine"] * torch.tensor([-1.0, 1.0, 1.0])[:, None]}

    with torch.no_grad():
        found = MatchingInferer(global_matches=5)(bar(), turning(mirrored), bar())
    assert len(glances) == 1
    assert torch.linalg.det(found["affine"][0, :, :3]) < 0


def test_the_mirror_image_is_matched_where_asked_for():
    """Along the axis from left to right, here the last one; by a network that tells no agreement, too."""

    def unmoved(fixed, moving):
        nothing = torch.zeros(1, 3, 24, 24, 24)
        return {
            "affine": torch.eye(3, 4)[None],
            "local_displacement": nothing,
            "displacement": nothing,
            "warped": moving,
        }

    shape = torch.rand(1, 1, 24, 24, 24, generator=torch.Generator().manual_seed(0))
    shape[..., 12:] = 0
    match = MatchingInferer(check_mirror=True, orientation="SAL")
    as_it_is, mirrored = (match(shape, unmoved, moving) for moving in (shape.clone(), shape.flip(4)))
    assert "mirror_margin" not in MatchingInferer()(shape, unmoved, shape.clone())
    assert as_it_is["mirror_margin"] == -mirrored["mirror_margin"] > 0.2


@pytest.mark.parametrize("matches", [1, 2])
@pytest.mark.parametrize(
    ("agreement", "inliers", "doubted"),
    [(0.5, 0.6, True), (0.5, 0.8, False), (0.7, 0.6, False), (0.7, 0.8, False), (0.5, 0.4, True), (0.7, 0.4, False)],
)
@pytest.mark.parametrize("alike", ["map", "shift"])
def test_a_map_in_doubt_gives_way_to_a_shift_that_makes_the_images_more_alike(
    agreement, inliers, doubted, alike, matches, monkeypatch
):
    """Of the scans as they stand, and in any case with few inliers; local matching goes on from there."""

    def told(_, __, found):
        return {**found, "agreement": torch.tensor([agreement]), "inliers": torch.tensor([inliers])}

    network, fixed, shift, asked = turning(told), bar(), torch.eye(3, 4)[None], []
    shift[0, 1, 3] = 4
    moving = warp(fixed, affine_displacement(turn(-0.6), [24] * 3))
    head = LocalMatchingHead((4, 8), strides=(2, 1), radii=(1, 1), widths=(4, 4))
    network.matching_head.local_matching = head

    def best_start(_, one, other, affine, gain, largest):
        asked.append((one.image, other.image, gain, largest))
        return shift if affine is None or alike == "shift" else affine

    monkeypatch.setattr(type(head), "best_start", best_start)
    rule = {"agreement": 0.6, "inliers": 0.7, "lost": 0.45, "gain": 0.02, "largest": 0.3}
    with torch.no_grad():
        found = MatchingInferer(global_matches=matches, doubted=rule, settled=9)(fixed, network, moving)
        one, other = (Levels.of(network.backbone, image) for image in (fixed, moving))
        local = head(one, other, shift)["local_displacement"]
    assert len(asked) == doubted
    if doubted:
        assert torch.equal(asked[0][0], fixed)
        assert torch.equal(asked[0][1], moving)
        assert asked[0][2:] == (0.02, 0.3)
    torch.testing.assert_close(found["matched_affine"][..., :3], turn(0.3)[..., :3], atol=0.02, rtol=0)
    if doubted and (alike == "shift" or inliers < 0.45):
        assert torch.equal(found["affine"], shift)
        torch.testing.assert_close(found["local_displacement"], local)
    else:
        assert torch.equal(found["affine"], found["matched_affine"])
    torch.testing.assert_close(found["warped"], warp(moving, found["displacement"]))


@pytest.mark.parametrize("matches", [1, 3])
def test_local_matching_there_and_back(matches):
    """By the head that can, whatever the number of global matches; another head is asked one way."""
    network, fixed = turning(lambda *_: None), bar()
    moving = warp(fixed, affine_displacement(turn(-0.01), [24] * 3))
    with torch.no_grad():
        one_way, same = (
            MatchingInferer(global_matches=3, both_ways=on)(fixed, network, moving) for on in (False, True)
        )
        torch.testing.assert_close(same["displacement"], one_way["displacement"])
        network.matching_head.local_matching = LocalMatchingHead((4, 8), strides=(2, 1), radii=(1, 1), widths=(4, 4))
        found = MatchingInferer(global_matches=matches, both_ways=True)(fixed, network, moving)
        one, other = (Levels.of(network.backbone, image) for image in (fixed, moving))
        expected = network.matching_head.local_matching.both_ways(one, other, found["affine"])["local_displacement"]
    torch.testing.assert_close(found["local_displacement"], expected)


def test_a_flat_map_is_gone_one_way():
    """It has no inverse: matched as without the option, not with an error."""
    flat = torch.diag(torch.tensor([1.0, 1.0, 0.0, 0.0]))[None, :3]
    network, fixed = turning(lambda _, __, found: {**found, "affine": flat}), bar()
    network.matching_head.local_matching = LocalMatchingHead((4, 8), strides=(2, 1), radii=(1, 1), widths=(4, 4))
    with torch.no_grad():
        both, one_way = (MatchingInferer(both_ways=on)(fixed, network, bar().flip(2)) for on in (True, False))
    torch.testing.assert_close(both["displacement"], one_way["displacement"])
