# SPDX-License-Identifier: Apache-2.0

"""The backbone and the whole network: sizes, gradients, both ways, and that the affine head learns rotations."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.linalg import polar
from scipy.spatial.transform import Rotation
from scripts.errors import InputError
from scripts.losses import GVSLLoss, LocalNCCLoss, MatchingTerm, RestorationTerm, SmoothnessTerm
from scripts.networks import GVSL, AffineHead, DeformableHead, LocalHead, RestorationHead, UNetBackbone, ZMatchingHead
from scripts.spatial import affine_about_centre, affine_displacement, warp
from torch import nn


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


def test_paper_architecture():
    """Five levels, 8 channels a group, slope 0.2, max pooling, corners aligned: what the counts cannot see."""
    with torch.device("meta"):
        backbone = UNetBackbone()
    norms = [layer for layer in backbone.modules() if isinstance(layer, nn.GroupNorm)]
    assert {n.num_channels // n.num_groups for n in norms} == {8}
    assert len(norms) == 18
    assert {a.negative_slope for a in backbone.modules() if isinstance(a, nn.LeakyReLU)} == {0.2}
    assert len([p for p in backbone.modules() if isinstance(p, nn.MaxPool3d)]) == 4
    ups = [u for u in backbone.modules() if isinstance(u, nn.Upsample)]
    assert {(u.mode, u.align_corners) for u in ups} == {("trilinear", True)}
    assert len(ups) == 4


@pytest.mark.parametrize("dims", [2, 3])
def test_kaiming_normal_weights(dims):
    """The convolutions' weights have the standard deviation of Kaiming's rule for a slope of 0.2, biases are 0."""
    torch.manual_seed(0)
    for layer in UNetBackbone(dims, 1, (32, 64)).modules():
        if isinstance(layer, (nn.Conv2d, nn.Conv3d)):
            fan_in = layer.weight[0].numel()
            assert layer.weight.std().item() == pytest.approx((2 / 1.04 / fan_in) ** 0.5, rel=0.1)
            assert layer.bias.abs().max() == 0


@settings(max_examples=12, deadline=None)
@given(size=st.lists(st.integers(4, 19), min_size=2, max_size=3), batch=st.integers(1, 2))
def test_any_size_and_dimension(size, batch):
    """Local features have the image's size, global ones that of the padded image's last level; 2D and 3D."""
    torch.manual_seed(0)
    backbone = UNetBackbone(len(size), 1, (4, 8, 16)).eval()
    with torch.no_grad():
        coarse, local = backbone(torch.rand(batch, 1, *size))
    assert local.shape == (batch, 4, *size)
    assert coarse.shape == (batch, 16, *(-(-n // 4) for n in size))
    assert torch.isfinite(local).all()


def test_padding_is_symmetric_zeros_and_cropped_back():
    """An image padded by hand gives the same features, cropped by hand."""
    torch.manual_seed(0)
    backbone = UNetBackbone(3, 1, (4, 8, 16)).eval()
    image = torch.rand(1, 1, 9, 8, 6)
    by_hand = torch.zeros(1, 1, 12, 8, 8)
    by_hand[:, :, 1:10, :, 1:7] = image
    with torch.no_grad():
        coarse, local = backbone(image)
        expected_coarse, expected_local = backbone(by_hand)
    torch.testing.assert_close(coarse, expected_coarse)
    torch.testing.assert_close(local, expected_local[:, :, 1:10, :, 1:7])


def test_encode_gives_the_levels():
    """The encoder's last level is f^g; each level halves the size."""
    backbone = UNetBackbone(3, 1, (4, 8, 16)).eval()
    image = torch.rand(1, 1, 8, 12, 16)
    with torch.no_grad():
        levels = backbone.encode(image)
        torch.testing.assert_close(levels[-1], backbone(image)[0])
    assert [tuple(level.shape[1:]) for level in levels] == [(4, 8, 12, 16), (8, 4, 6, 8), (16, 2, 3, 4)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"spatial_dims": 1}, "spatial_dims"),
        ({"spatial_dims": 4}, "spatial_dims"),
        ({"features": (8,)}, "two or more"),
        ({"features": (8, 0)}, "at least one channel"),
    ],
)
def test_backbone_refusals(arguments, message):
    """Impossible backbones are refused with the argument's name."""
    with pytest.raises(InputError, match=message):
        UNetBackbone(**arguments)


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


SIZE = (28, 24, 20)


class NoDeformation(LocalHead):
    """A deformable head that leaves everything to the affine head."""

    def field(self, moving, fixed):
        return torch.zeros(len(fixed), 3, *fixed.shape[2:])


def asymmetric_image():
    """A smooth random texture within an ellipsoid, on grey."""
    texture = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=SIZE), 2.5)
    centred = (np.indices(SIZE) - (np.array(SIZE) - 1).reshape(3, 1, 1, 1) / 2) / np.reshape((11, 9, 7.5), (3, 1, 1, 1))
    radius = np.sqrt((centred**2).sum(0))
    return np.clip(2 * texture / np.abs(texture).max() / (1 + np.exp((radius - 1) * 8)), 0, 1)


def encoder_only(backbone):
    """The backbone's f^g with unused local features: what the affine head needs, in a third of the time."""

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.downs = backbone.stem, backbone.downs

        def forward(self, image):
            return backbone.encode(image)[-1], image.new_zeros(len(image), 1, *image.shape[2:])

    return Encoder()


def test_a_known_rotation_is_recovered():
    """
    Trained by the masked NCC alone on random rotations of one image, the network finds rotations it never saw, made by
    scipy's splines, to within 2 degrees.
    """
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    still = asymmetric_image()
    image = torch.as_tensor(still, dtype=torch.float32)[None, None]
    backbone = encoder_only(UNetBackbone(3, 1, (8, 16, 32)))
    network = GVSL(backbone, ZMatchingHead(AffineHead(32, 32), NoDeformation()), nn.Identity())
    steps, batch = 200, 4
    loss = GVSLLoss({"matching": MatchingTerm(LocalNCCLoss(9))})
    affine_head = network.matching_head.global_matching
    parameters = [*network.backbone.parameters(), *affine_head.parameters()]
    last = {id(p) for p in affine_head.parameters_of_map.parameters()}
    rates = [3e-3, 3e-2]
    groups = [{"params": [p for p in parameters if (id(p) in last) == chosen]} for chosen in (False, True)]
    optimiser = torch.optim.Adam(groups, rates[0])
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rates, total_steps=steps)

    def rotated(turns):
        """image(R^T q): brought back by the map R."""
        back = torch.as_tensor(turns, dtype=torch.float32).transpose(1, 2)
        affine = affine_about_centre(back, torch.zeros(len(back), 3), SIZE)
        return warp(image.expand(len(back), -1, -1, -1, -1), affine_displacement(affine, SIZE), padding_mode="border")

    fixed = image.expand(batch, -1, -1, -1, -1)
    for _ in range(steps):
        axes = rng.normal(size=(batch // 2, 3))
        angles = np.radians(rng.uniform(-15, 15, (batch // 2, 1)))
        turns = Rotation.from_rotvec(angles * axes / np.linalg.norm(axes, axis=1, keepdims=True)).as_matrix()
        moving = rotated(np.concatenate([turns, turns.transpose(0, 2, 1)]))
        optimiser.zero_grad()
        loss(network(fixed, moving), torch.cat([fixed, moving], dim=1))["loss"].backward()
        optimiser.step()
        schedule.step()

    network.eval()
    centre = (np.array(SIZE) - 1) / 2
    for vector in [(12, 0, 0), (0, -10, 0), (0, 0, 11), (6, -7, 5), (-8, 3, -6)]:
        turn = Rotation.from_rotvec(np.radians(vector))
        back = turn.as_matrix().T
        moving = ndimage.affine_transform(still, back, centre - back @ centre, order=3, mode="nearest")
        with torch.no_grad():
            found = network(image, torch.as_tensor(moving, dtype=torch.float32)[None, None])["affine"][0, :, :3]
        recovered = Rotation.from_matrix(polar(found.double().numpy())[0])
        error = np.degrees((recovered * turn.inv()).magnitude())
        assert error < 2, f"rotation {vector}: {error:.2f} degrees off"
