# SPDX-License-Identifier: Apache-2.0

"""Networks of MONAI and nnU-Net as backbones."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from monai.networks.nets import BasicUNet, DynUNet, SegResNet, SwinUNETR
from scripts.errors import InputError
from scripts.networks import NetworkBackbone
from torch import nn

SIZE = (20, 33, 24)
GIVEN: dict[str, tuple[Callable[[], nn.Module], dict[str, Any], tuple[int, int]]] = {
    "segresnet": (
        partial(SegResNet, init_filters=8),
        {
            "global_features": "down_layers.3",
            "local_features": "conv_final.2",
            "levels": ["up_layers.1"],
            "multiple": 8,
        },
        (64, 8),
    ),
    "dynunet": (
        partial(DynUNet, 3, 1, 2, [3] * 4, [1, 2, 2, 2], [2, 2, 2], filters=[4, 8, 12, 16], deep_supervision=True),
        {
            "global_features": "bottleneck",
            "local_features": "output_block",
            "levels": ["upsamples.1"],
            "unused": ["deep_supervision_heads"],
            "multiple": 8,
        },
        (16, 4),
    ),
    "basic_unet": (
        partial(BasicUNet, features=(4, 8, 8, 8, 16, 6)),
        {"global_features": "down_4", "local_features": "final_conv", "levels": ["upcat_2"]},
        (16, 6),
    ),
    "swin_unetr": (
        partial(SwinUNETR, 1, 2, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1), window_size=4, feature_size=12),
        {"global_features": "encoder10", "local_features": "out", "levels": ["decoder3"], "multiple": 32},
        (192, 12),
    ),
}


def residual_encoder_unet() -> nn.Module:
    unet = pytest.importorskip("dynamic_network_architectures.architectures.unet")
    return unet.ResidualEncoderUNet(
        *(1, 3, [4, 8, 16], nn.Conv3d, 3, [1, 2, 2], [1, 1, 1], 2, 1),
        norm_op=nn.InstanceNorm3d,
        norm_op_kwargs={"affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
    )


GIVEN["resenc"] = (
    residual_encoder_unet,
    {
        "global_features": "encoder.stages.2",
        "local_features": "decoder.seg_layers.1",
        "levels": ["decoder.stages.0"],
        "unused": ["decoder.seg_layers.0"],
        "multiple": 4,
    },
    (16, 4),
)


@pytest.fixture(params=GIVEN)
def backbone(request: pytest.FixtureRequest) -> NetworkBackbone:
    torch.manual_seed(0)
    made, layers, _ = GIVEN[request.param]
    backbone = NetworkBackbone(made, **layers)
    backbone.channels = GIVEN[request.param][2]
    return backbone


def test_features_of_any_size_and_their_gradients(backbone: NetworkBackbone) -> None:
    image = torch.randn(2, 1, *SIZE)
    features = backbone.levels(image)
    assert len(features) == 3
    padded = [-(-n // backbone.multiple) * backbone.multiple for n in SIZE]
    assert features[0].shape[:2] == (2, backbone.channels[0])
    assert all(n % edge == 0 and n > edge for n, edge in zip(padded, features[0].shape[2:], strict=True))
    assert features[1].shape == (2, backbone.channels[1], *SIZE)
    sum((level * torch.randn_like(level)).sum() for level in features).backward()
    trained = {name for name, value in backbone.named_parameters() if value.requires_grad}
    reached = {name for name, value in backbone.named_parameters() if value.grad is not None}
    assert trained == reached  # processes that train together wait for a gradient of each
    assert not backbone._found


def test_local_features_are_what_the_last_layer_is_given(backbone: NetworkBackbone) -> None:
    image = torch.randn(1, 1, 32, 32, 64)
    backbone.eval()
    with torch.no_grad():
        last = backbone.network.get_submodule(backbone.names[1])
        torch.testing.assert_close(last(backbone(image)[1]), backbone.network(image), rtol=0, atol=0)


def test_the_decoders_levels_and_what_belongs_to_the_last_one(backbone: NetworkBackbone) -> None:
    """A level of the decoder that is named, and full size: changed weights of the latter leave the former as it was."""
    backbone.names = [*backbone.names[:2], backbone.names[0], backbone.names[2]]  # as one of the encoder
    backbone.eval()
    image = torch.randn(1, 1, 32, 32, 64)
    with torch.no_grad():
        before = backbone.decoder_levels(image)
        assert backbone.features == (backbone.channels[1], before[1].shape[1], backbone.channels[0])
        torch.testing.assert_close(before[0], backbone(image)[1])
        last = backbone.names_of_last_levels(1)
        assert last
        for name, value in backbone.named_parameters():
            if name in last:
                value.add_(0.5 + torch.rand_like(value))
        after = backbone.decoder_levels(image)
    assert torch.equal(after[1], before[1])
    assert not torch.allclose(after[0], before[0])
    assert backbone.names_of_last_levels(0) == []
    assert set(last) < set(backbone.names_of_last_levels(2))
    assert (backbone.spatial_dims, backbone.in_channels) == (3, 1)


def test_copies_do_not_share_what_they_compute(backbone: NetworkBackbone) -> None:
    other = copy.deepcopy(backbone.eval())
    with torch.no_grad():
        for value in other.parameters():
            value.add_(0.1)
        image = torch.randn(1, 1, 32, 32, 64)
        before = backbone(image)
        assert not torch.allclose(other(image)[1], before[1])
        assert torch.equal(backbone(image)[1], before[1])


@pytest.mark.parametrize("layer", ["global_features", "local_features", "levels", "unused"])
def test_an_unknown_layer_is_named(layer: str) -> None:
    made, layers, _ = GIVEN["basic_unet"]
    wrong: Any = ["down_9"] if layer in ("levels", "unused") else "down_9"
    with pytest.raises(InputError, match=r"BasicUNet has no layer 'down_9'; its parts are conv_0, .*final_conv"):
        NetworkBackbone(made, **{**layers, layer: wrong})


def test_z_scored_images_give_the_same_features_in_any_unit() -> None:
    torch.manual_seed(0)
    made, layers, _ = GIVEN["dynunet"]
    backbone = NetworkBackbone(made, **layers, z_score=True).eval()
    images = torch.randn(2, 1, 16, 16, 16) * torch.tensor([1.0, 5.0]).reshape(2, 1, 1, 1, 1)
    with torch.no_grad():
        expected = backbone.network(torch.stack([(image - image.mean()) / image.std(correction=0) for image in images]))
        last = backbone.network.get_submodule(backbone.names[1])
        torch.testing.assert_close(last(backbone(images)[1]), expected)
        torch.testing.assert_close(backbone(300 * images - 1024)[0], backbone(images)[0], rtol=1e-3, atol=1e-4)
        assert backbone(torch.zeros(1, 1, 16, 16, 16))[1].isfinite().all()  # a constant image has no deviation
