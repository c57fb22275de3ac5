# SPDX-License-Identifier: Apache-2.0

"""The pre-trained encoder in MONAI's FlexibleUNet."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from monai.networks.nets import FlexibleUNet
from monai.networks.nets.flexible_unet import FLEXUNET_BACKBONE
from scripts.errors import InputError
from scripts.networks import UNetBackbone, register_encoder

FEATURES = (4, 8, 12)


@pytest.fixture
def backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> UNetBackbone:
    monkeypatch.setattr(FLEXUNET_BACKBONE, "register_dict", dict(FLEXUNET_BACKBONE.register_dict))
    torch.manual_seed(0)
    backbone = UNetBackbone(3, 1, FEATURES).eval()
    weights = {f"backbone.{name}": value for name, value in backbone.state_dict().items()}
    torch.save({**weights, "restoration_head.bias": torch.zeros(1)}, tmp_path / "model.pt")
    register_encoder("tiny", FEATURES, tmp_path / "model.pt")
    return backbone


def unet(channels: int = 1, pretrained: bool = True) -> FlexibleUNet:
    return FlexibleUNet(channels, 3, "tiny", pretrained, decoder_channels=(16, 8), spatial_dims=3).eval()


def test_it_begins_with_the_encoder_of_the_weights(backbone: UNetBackbone) -> None:
    image = torch.rand(2, 1, 16, 24, 16)
    network = unet()
    with torch.no_grad():
        for ours, theirs in zip(network.encoder(image), backbone.encode(image)[1:], strict=True):
            assert torch.equal(ours, theirs)
        assert network(image).shape == (2, 3, 16, 24, 16)
        assert not torch.equal(unet(pretrained=False).encoder(image)[0], network.encoder(image)[0])


def test_several_channels_begin_with_the_stem_repeated(backbone: UNetBackbone) -> None:
    image = torch.rand(1, 1, 16, 16, 16)
    with torch.no_grad():
        for ours, theirs in zip(unet(4).encoder(image.repeat(1, 4, 1, 1, 1)), backbone.encode(image)[1:], strict=True):
            torch.testing.assert_close(ours, theirs)


def test_what_does_not_fit_is_refused(backbone: UNetBackbone, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="each side of the image must be a multiple of 4"):
        unet().encoder(torch.rand(1, 1, 16, 18, 16))
    register_encoder("tiny", (4, 8, 16), tmp_path / "model.pt")
    with pytest.raises(InputError, match="another architecture"):
        unet()
    register_encoder("tiny", FEATURES)
    with pytest.raises(InputError, match="no weights to begin with"):
        unet()
    torch.save({"head.weight": torch.zeros(1)}, tmp_path / "model.pt")
    register_encoder("tiny", FEATURES, tmp_path / "model.pt")
    with pytest.raises(InputError, match="holds no weights of this network"):
        unet()
    with pytest.raises(InputError, match="5 levels below full size, not 6"):
        register_encoder("deep", (4,) * 7)
