# SPDX-License-Identifier: Apache-2.0
"""Self-restoration: the clean image from the local features."""

from __future__ import annotations

from monai.networks.blocks import Convolution
from monai.networks.layers.factories import Conv
from torch import nn

from .blocks import LEAKY_RELU, group_norm, initialise
from .recorded import recorded


@recorded
class RestorationHead(nn.Sequential):
    """
    Self-restoration: 3x3x3 convolution, GroupNorm with 4 channels a group, LeakyReLU, 1x1x1 convolution.

    Args:
        in_channels: channels of the local features.
        out_channels: channels of the image.
        hidden_channels: channels between the two convolutions.
        spatial_dims: 2 or 3.
    """

    def __init__(
        self,
        in_channels: int = 32,
        out_channels: int = 1,
        hidden_channels: int = 16,
        spatial_dims: int = 3,
    ) -> None:
        norm = group_norm(hidden_channels, channels_per_group=4)
        super().__init__(
            Convolution(spatial_dims, in_channels, hidden_channels, act=LEAKY_RELU, norm=norm, adn_ordering="NA"),
            Conv[Conv.CONV, spatial_dims](hidden_channels, out_channels, kernel_size=1),
        )
        initialise(self)
