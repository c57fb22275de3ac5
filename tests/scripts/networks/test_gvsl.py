# SPDX-License-Identifier: Apache-2.0

"""The whole network: sizes, gradients, both ways."""

import pytest
import torch
from scripts.errors import InputError
from scripts.losses import GVSLLoss, KnownMapTerm, LocalNCCLoss, MatchingTerm, RestorationTerm, SmoothnessTerm
from scripts.networks import GVSL, AffineHead, DeformableHead, KnownMap, RestorationHead, UNetBackbone, ZMatchingHead
from scripts.spatial import warp


def small_network(dims=3, channels=1, **options):
    """A GVSL network of two poolings."""
    torch.manual_seed(0)
    return GVSL(
        UNetBackbone(dims, channels, (4, 8, 16)),
        ZMatchingHead(AffineHead(16, 8, dims), DeformableHead(4, 8, dims)),
        RestorationHead(4, channels, 8, dims),
        **options,
    )


def nudge(network):
    """Small random numbers for the layers that start at zero, so that matches are not the identity."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in (
            network.matching_head.global_matching.parameters_of_map,
            network.matching_head.local_matching.displacement,
        ):
            for parameter in layer.parameters():
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return network


def images(size, batch=1, channels=1, seed=0):
    """Two batches of random images."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(batch, channels, *size, generator=generator) for _ in range(2)]


def test_parameter_counts_are_the_papers():
    """23,538,144 in the backbone, 32,440,739 in the whole network, with the paper's sizes as defaults."""
    with torch.device("meta"):
        backbone = UNetBackbone()
        network = GVSL(backbone, ZMatchingHead(AffineHead(), DeformableHead()), RestorationHead())
    assert sum(p.numel() for p in backbone.parameters()) == 23_538_144
    assert sum(p.numel() for p in network.parameters()) == 32_440_739


def test_network_refusals():
    """An unknown corrupted image, images of two shapes, wrong channels or dimensions are refused in words."""
    with pytest.raises(InputError, match="both"):
        small_network(corrupted="both")
    network = small_network()
    with pytest.raises(ValueError, match="differ in shape"):
        network(torch.zeros(1, 1, 8, 8, 8), torch.zeros(1, 1, 8, 8, 9))
    with pytest.raises(ValueError, match="1-channel"):
        network(torch.zeros(1, 2, 8, 8, 8))
    with pytest.raises(ValueError, match="3 spatial dimensions"):
        network(torch.zeros(1, 1, 8, 8))


@pytest.mark.parametrize(("dims", "size"), [(3, (9, 8, 7)), (2, (11, 8))])
def test_interface(dims, size):
    """One image is restored; two are matched: shapes, and the warped image is the moving one under the fused field."""
    network = nudge(small_network(dims, 2)).eval()
    fixed, moving = images(size, 2, 2)
    with torch.no_grad():
        restored = network(fixed)
        found = network(fixed, moving)
    assert restored.shape == fixed.shape
    assert set(found) == {"warped", "affine", "local_displacement", "displacement"}
    assert found["affine"].shape == (2, dims, dims + 1)
    assert found["displacement"].shape == found["local_displacement"].shape == (2, dims, *size)
    torch.testing.assert_close(found["warped"], warp(moving, found["displacement"]))
    assert (found["warped"] - moving).abs().max() > 0.01


def test_a_new_network_does_not_move_anything():
    """Before training the match is the identity: the warped image is the moving one."""
    fixed, moving = images((9, 8, 7))
    torch.testing.assert_close(small_network().eval()(fixed, moving)["warped"], moving, atol=1e-4, rtol=0)


def test_only_what_is_used_is_computed():
    """The losses warp the clean image themselves; a match restores nothing."""
    fixed, moving = images((8, 8, 8))
    network = small_network(symmetric=True)
    found = network(fixed, moving)
    assert set(found) == {"affine", "local_displacement", "displacement", "restored", "given", "backward", "features"}
    assert set(found["backward"]) == set(found) - {"backward"}
    assert set(network.eval()(fixed, moving)) == {"affine", "local_displacement", "displacement", "warped"}


def test_without_matching_the_head_is_left_as_it_is():
    """It trains by restoration alone, and has a head for what is trained after it."""
    fixed, moving = images((8, 8, 8))
    network = small_network(matched=False)
    found = network(fixed, moving)
    assert set(found) == {"restored", "given", "features"}
    found["restored"].sum().backward()
    assert all(weight.grad is None and not weight.requires_grad for weight in network.matching_head.parameters())
    assert "displacement" in network.eval()(fixed, moving)


@pytest.mark.parametrize("symmetric", [False, True])
def test_features_are_those_of_the_moving_image(symmetric):
    """Of all levels, f^g and f^l first; of the backward match those of the fixed one."""
    fixed, moving = images((9, 8, 7))
    network = small_network(symmetric=symmetric)
    found = network(fixed, moving)
    for way, image in {"forward": moving, **({"backward": fixed} if symmetric else {})}.items():
        features = found["features"] if way == "forward" else found["backward"]["features"]
        expected = network.backbone.levels(image)
        assert len(features) == len(expected) == 2 * len(network.backbone.features) - 1
        for level, alone in zip(features, expected, strict=True):
            torch.testing.assert_close(level, alone, atol=1e-4, rtol=1e-4)
        for level, alone in zip(features, network.backbone(image), strict=False):
            torch.testing.assert_close(level, alone, atol=1e-4, rtol=1e-4)


def test_a_backbone_may_have_no_levels():
    """Then its global and local features are all that there are."""
    network = small_network()
    whole = network.backbone

    class Plain(torch.nn.Module):
        def forward(self, image):
            return whole(image)

    network.backbone = Plain()
    assert len(network(*images((8, 8, 8)))["features"]) == 2


@pytest.mark.parametrize("corrupted", ["moving", "fixed"])
@pytest.mark.parametrize("symmetric", [False, True])
def test_restored_image(corrupted, symmetric):
    """``restored`` restores the image that is said to be corrupted; the backward match restores the other one."""
    network = small_network(corrupted=corrupted, symmetric=symmetric)
    pair = dict(zip(("fixed", "moving"), images((8, 8, 8)), strict=True))
    found = network(pair["fixed"], pair["moving"])
    other = {"fixed": "moving", "moving": "fixed"}[corrupted]
    torch.testing.assert_close(found["restored"], network(pair[corrupted]), atol=1e-5, rtol=1e-4)
    assert torch.equal(found["given"], pair[corrupted])
    if symmetric:
        assert torch.equal(found["backward"]["given"], pair[other])
        torch.testing.assert_close(found["backward"]["restored"], network(pair[other]), atol=1e-5, rtol=1e-4)


def test_symmetric_only_in_training():
    """Both ways are matched while training; an evaluation costs one."""
    fixed, moving = images((8, 8, 8))
    network = small_network(symmetric=True)
    assert "backward" in network(fixed, moving)
    assert "backward" not in network.eval()(fixed, moving)
    assert "backward" not in small_network()(fixed, moving)


def test_symmetric_ways_are_exchanged_with_the_input():
    """Exchanging fixed and moving exchanges the two matches; each equals the one-way network's."""
    fixed, moving = images((9, 8, 7), 2)
    network = nudge(small_network(symmetric=True))
    there, back = network(fixed, moving), network(moving, fixed)
    network.eval()
    one_way = network(fixed, moving)
    maps = ("affine", "local_displacement", "displacement")
    for name, value in ((name, one_way[name]) for name in maps):
        torch.testing.assert_close(there[name], value, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(back["backward"][name], value, atol=1e-4, rtol=1e-4)
    reverse = network(moving, fixed)
    for name, value in ((name, reverse[name]) for name in maps):
        torch.testing.assert_close(there["backward"][name], value, atol=1e-4, rtol=1e-4)
    assert (one_way["affine"] - reverse["affine"]).abs().max() > 1e-3


def known_maps(pairs, size):
    """Of a batch, shifted by a voxel; pairs of 0 are of two people."""
    batch, dims = len(pairs), len(size)
    affine = torch.eye(dims, dims + 1).repeat(batch, 1, 1)
    affine[:, :, -1] = 1
    return KnownMap(tuple(pairs), affine, torch.ones(batch, dims, *size), torch.zeros(batch, dims, *size))


def test_pairs_of_two_people_are_matched_both_ways():
    """A known map leads one way: the backward match is that of the other pairs, and the loss is of those."""
    fixed, moving = images((9, 8, 7), 3)
    maps = known_maps((5, 0, 7), (9, 8, 7))
    network = nudge(small_network(symmetric=True))
    found = network(fixed, moving, *maps)
    alone = network(fixed[1:2], moving[1:2])
    assert found["known"]["pairs"] == (5, 0, 7)
    assert "known" not in found["backward"]
    for name in ("displacement", "restored", "given"):
        torch.testing.assert_close(found["backward"][name], alone["backward"][name], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found[name][1:2], alone[name], atol=1e-4, rtol=1e-4)
    assert [len(level) for level in found["features"]] == [3] * len(found["features"])
    terms = {"matching": MatchingTerm(LocalNCCLoss(5)), "known_map": KnownMapTerm(threshold=0)}
    whole = GVSLLoss(terms)(found, torch.cat([fixed, moving], dim=1))
    of_people = GVSLLoss(terms)(alone, torch.cat([fixed[1:2], moving[1:2]], dim=1))
    torch.testing.assert_close(whole["matching"], of_people["matching"])
    one_way = KnownMapTerm(threshold=0)({key: found[key] for key in ("known", "displacement")}, {"fixed": fixed})
    assert whole["known_map"] == one_way > 0


def test_known_maps_alone_are_matched_one_way():
    fixed, moving = images((9, 8, 7), 2)
    assert "backward" not in small_network(symmetric=True)(fixed, moving, *known_maps((5, 7), (9, 8, 7)))


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(("dims", "size"), [(3, (9, 8, 7)), (2, (11, 8))])
def test_batch_of_two_is_two_batches_of_one(dims, size, symmetric):
    """Pairs of one batch do not mix: each result equals that of the pair alone."""
    network = nudge(small_network(dims, symmetric=symmetric))
    fixed, moving = images(size, 2)
    together = network(fixed, moving)
    for k in range(2):
        alone = network(fixed[k : k + 1], moving[k : k + 1])
        ways = [(alone, together)]
        if symmetric:
            ways.append((alone.pop("backward"), together["backward"]))
        for single, whole in ways:
            levels = zip(single.pop("features"), whole["features"], strict=True)
            for value, others in [*((value, whole[name]) for name, value in single.items()), *levels]:
                torch.testing.assert_close(value[0], others[k], atol=1e-4, rtol=1e-4)
    assert (together["affine"][0] - together["affine"][1]).abs().max() > 1e-4


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(("dims", "size"), [(3, (11, 9, 10)), (2, (13, 10))])
def test_every_parameter_gets_a_gradient(dims, size, symmetric):
    """After one step (the last layers start at zero) the loss reaches every parameter of backbone and heads."""
    network = small_network(dims, symmetric=symmetric)
    loss = GVSLLoss(
        {"matching": MatchingTerm(LocalNCCLoss(5)), "smoothness": SmoothnessTerm(), "restoration": RestorationTerm()}
    )
    optimiser = torch.optim.Adam(network.parameters(), 1e-3)
    fixed, moving = images(size, 2)
    for _ in range(2):
        optimiser.zero_grad()
        loss(network(fixed, moving), torch.cat([fixed, moving], dim=1))["loss"].backward()
        gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
        optimiser.step()
    for name, gradient in gradients.items():
        assert gradient is not None, name
        assert torch.isfinite(gradient).all(), name
        assert gradient.abs().max() > 0, name
    affine = network.matching_head.global_matching.parameters_of_map.weight.grad
    assert (affine.abs().sum(dim=1) > 0).all(), "each rotation, scale, shear and translation"


@pytest.mark.parametrize("size", [(12, 8), (9, 12, 7)])
def test_torchscript_restores_the_same(size):
    """It knows one type of result: the image alone goes in, and any size will do."""
    model = small_network(len(size)).eval()
    exported = torch.jit.script(model)
    image = torch.rand(2, 1, *size)
    torch.testing.assert_close(exported(image), model(image))
    assert not exported.training
    assert set(exported.state_dict()) <= set(model.state_dict())


def test_without_affine_head():
    """A network without affine head matches by the displacement alone."""
    torch.manual_seed(0)
    network = GVSL(UNetBackbone(3, 1, (4, 8)), ZMatchingHead(None, DeformableHead(4, 8)), RestorationHead(4, 1, 8))
    fixed, moving = images((8, 7, 6), 2)
    found = network(fixed, moving)
    torch.testing.assert_close(found["affine"], torch.eye(3, 4).expand(2, -1, -1))
    torch.testing.assert_close(found["displacement"], found["local_displacement"], atol=1e-5, rtol=0)


def test_under_autocast():
    """bfloat16 autocast leaves maps and warped image in float32, finite, and close to full precision."""
    network = nudge(small_network()).eval()
    fixed, moving = images((12, 10, 9))
    with torch.no_grad():
        expected = network(fixed, moving)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = network(fixed, moving)
    for name in ("warped", "affine", "local_displacement", "displacement"):
        assert found[name].dtype == torch.float32
        assert torch.isfinite(found[name]).all()
    assert (found["displacement"] - expected["displacement"]).abs().max() < 0.2
