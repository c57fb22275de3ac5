# SPDX-License-Identifier: Apache-2.0
"""Norms of convolutions before a normalisation change no output."""

from __future__ import annotations

import pytest
import torch
from monai.networks.blocks import Convolution
from scripts.networks import UNetBackbone
from scripts.networks.weight_norms import scale_weights, weight_norms
from torch import nn


@pytest.mark.parametrize("dims", [2, 3])
def test_scaled_weights_compute_the_same(dims):
    torch.manual_seed(0)
    backbone, image = UNetBackbone(dims, features=(8, 8, 16)), torch.rand(1, 1, *[16] * dims)
    for block in backbone.modules():
        if isinstance(block, nn.GroupNorm):
            nn.init.uniform_(block.bias, -1, 1)
    wanted = {name: norm * (1 + number) for number, (name, norm) in enumerate(weight_norms(backbone).items())}
    convolutions = [m for m in backbone.modules() if isinstance(m, nn.Conv2d | nn.Conv3d)]
    assert len(wanted) == len(convolutions)
    with torch.no_grad():
        before = backbone(image)
        scale_weights(backbone, wanted)
        torch.testing.assert_close(backbone(image), before, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(weight_norms(backbone), wanted)


@pytest.mark.parametrize("norm", ["batch", "instance", None])
def test_what_would_change_the_output_stays(norm):
    """Without a normalisation, before one with running statistics, or of one channel, which may be all but constant."""
    block = Convolution(3, 1, 4, norm=norm)
    before = block.conv.weight.clone()
    assert weight_norms(block) == {}
    scale_weights(block, {"": torch.tensor(2.0)})
    assert torch.equal(block.conv.weight, before)
