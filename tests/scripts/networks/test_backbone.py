# SPDX-License-Identifier: Apache-2.0

"""The backbone: the paper's architecture, any size and dimension, its levels."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scripts.errors import InputError
from scripts.networks import UNetBackbone
from torch import nn


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
