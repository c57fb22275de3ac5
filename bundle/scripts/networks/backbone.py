# SPDX-License-Identifier: Apache-2.0
"""The backbone that is pre-trained here and fine-tuned downstream."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from monai.networks.nets.basic_unet import Down, TwoConv
from torch import nn
from torch.nn import functional

from ..errors import InputError
from .blocks import LEAKY_RELU, UpJoin, group_norm, initialise, padding_to_multiple
from .pretrained import Pretrained
from .recorded import recorded


@recorded
class UNetBackbone(Pretrained):
    """
    The U-Net that GVSL pre-trains (paper, section 3.3): two (3x3x3 convolution, GroupNorm, LeakyReLU) a level, 2x2x2
    max pooling, linear up-sampling with aligned corners, concatenated skips.

    Any image size will do: it is padded symmetrically to a multiple of ``2 ** (levels - 1)`` and the local features are
    cropped back.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        features: channels of the levels, from full size down; their number sets the number of poolings.

    Raises:
        InputError: with fewer than two levels, or channels that do not fit the normalisation's groups.
    """

    stems = ("stem.conv_0.conv.weight",)
    """Kernels that see the image."""

    def __init__(
        self, spatial_dims: int = 3, in_channels: int = 1, features: Sequence[int] = (32, 64, 128, 256, 512)
    ) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise InputError(f"spatial_dims is 2 or 3, not {spatial_dims}")
        if len(features) < 2 or min(features) < 1:
            raise InputError(f"features needs two or more levels of at least one channel, not {list(features)}")
        self.spatial_dims, self.in_channels, self.features = spatial_dims, in_channels, tuple(features)
        common: dict[str, Any] = {"act": LEAKY_RELU, "bias": True}
        self.stem = TwoConv(spatial_dims, in_channels, features[0], norm=group_norm(features[0]), **common)
        self.downs = nn.ModuleList(
            Down(spatial_dims, upper, lower, norm=group_norm(lower), **common) for upper, lower in pairwise(features)
        )
        self.ups = nn.ModuleList(
            UpJoin(
                spatial_dims,
                in_chns=lower,
                cat_chns=upper,
                out_chns=upper,
                norm=group_norm(upper),
                upsample="nontrainable",
                pre_conv=None,
                interp_mode="linear",
                align_corners=True,
                halves=False,
                is_pad=False,  # sizes fit; a padding by nothing would copy the largest features twice
                **common,
            )
            for upper, lower in reversed(list(pairwise(features)))
        )
        initialise(self)

    def encode(self, image: torch.Tensor) -> list[torch.Tensor]:
        """
        The encoder alone.

        Args:
            image: ``(B, C, D, H, W)``.

        Returns:
            the levels' features, from full size (padded) down to the bottleneck f^g.
        """
        levels = [self.stem(functional.pad(image, self.padding(list(image.shape[2:]))))]
        for down in self.downs:
            levels.append(down(levels[-1]))
        return levels

    def decode(self, levels: list[torch.Tensor]) -> list[torch.Tensor]:
        """
        The decoder alone.

        Args:
            levels: see :meth:`encode`.

        Returns:
            its levels' features ``(B, features[k], d, h, w)``, from the bottleneck's neighbour up to full size, padded.
        """
        decoded = [levels[-1]]
        for index, up in enumerate(self.ups):
            decoded.append(up(decoded[-1], levels[-2 - index]))
        return decoded[1:]

    def bottleneck(self, image: torch.Tensor) -> torch.Tensor:
        """f^g alone, without the decoder: ``(B, C, D, H, W)`` to ``(B, features[-1], d, h, w)``."""
        return self.encode(image)[-1]

    def decoder_levels(self, image: torch.Tensor) -> list[torch.Tensor]:
        """The decoder's levels of an image ``(B, C, D, H, W)``, full size first, padded, see :meth:`decode`."""
        return self.decode(self.encode(image))[::-1]

    @torch.jit.unused
    def names_of_last_levels(self, count: int) -> list[str]:
        """Names, in the state dictionary, of the weights of the decoder's last levels, those next to full size."""
        first = len(self.ups) - count
        return [
            f"ups.{level}.{name}" for level, up in enumerate(self.ups) if level >= first for name in up.state_dict()
        ]

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            image: ``(B, C, D, H, W)``.

        Returns:
            global features f^g ``(B, features[-1], D / 2^n, H / 2^n, W / 2^n)`` of the padded image, and local features
            f^l ``(B, features[0], D, H, W)``.
        """
        levels = self.levels(image)
        return levels[0], levels[1]

    def levels(self, image: torch.Tensor) -> list[torch.Tensor]:
        """
        Args:
            image: ``(B, C, D, H, W)``.

        Returns:
            f^g and f^l as :meth:`forward` gives them, and the features ``(B, features[k], d, h, w)`` of all other
            levels of the padded image, those of the encoder and then of the decoder, in the order of computation.
        """
        if image.dim() != self.spatial_dims + 2 or image.shape[1] != self.in_channels:
            raise ValueError(
                f"the backbone takes {self.in_channels}-channel images of {self.spatial_dims} spatial dimensions, "
                f"not {list(image.shape)}"
            )
        encoded = self.encode(image)
        decoded = self.decode(encoded)
        local, padding = decoded[-1], self.padding(list(image.shape[2:]))
        if max(padding) > 0:  # without the question three copies of the largest gradient
            local = functional.pad(local, [-zeros for zeros in padding])
        return [encoded[-1], local] + encoded[:-1] + decoded[:-1]

    def padding(self, size: list[int]) -> list[int]:
        """Zeros before and after each axis, last axis first (as ``torch.nn.functional.pad`` takes them)."""
        return padding_to_multiple(size, 1 << len(self.downs))  # a power would be a float in TorchScript
