# SPDX-License-Identifier: Apache-2.0
"""Descriptors of the decoder's levels, to be compared between scans."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from monai.networks.layers.factories import Conv
from torch import nn

from ..errors import InputError


def decoder_level(levels: Any, stride: int) -> torch.Tensor:
    """
    The decoder's features of one size.

    Args:
        levels: of an image, see :class:`~scripts.networks.Levels`.
        stride: 1 for f^l, 2 for half the size, 4 for a quarter.

    Returns:
        ``(B, C, d, h, w)``.
    """
    return levels.local if stride == 1 else levels.decoder[-(stride.bit_length() - 1)]


class LevelDescriptors(nn.Module):
    """
    1x1x1 projections of some of the decoder's levels, and a learned temperature for each, of the softmax over places.

    Args:
        features: channels of the backbone's levels, from full size down.
        strides: of the levels that are described: 1 for f^l, 2 for half the size, 4 for a quarter.
        widths: channels of their descriptors.
        spatial_dims: 2 or 3.
        temperature: at the start.

    Raises:
        InputError: for strides that the backbone's decoder does not have.
    """

    def __init__(
        self,
        features: Sequence[int],
        strides: Sequence[int],
        widths: Sequence[int],
        spatial_dims: int = 3,
        temperature: float = 0.1,
    ) -> None:
        super().__init__()
        there = [1 << level for level in range(len(features) - 1)]
        if not set(strides) <= set(there) or len(widths) != len(strides):
            raise InputError(
                f"a decoder of {len(features)} levels has the strides {there}, not {list(strides)}, and each needs a "
                f"width: {list(widths)}"
            )
        self.strides = tuple(strides)
        self.projections = nn.ModuleList(
            Conv[Conv.CONV, spatial_dims](features[stride.bit_length() - 1], width, kernel_size=1)
            for stride, width in zip(strides, widths, strict=True)
        )
        self.log_temperature = nn.Parameter(torch.full((len(self.strides),), math.log(temperature)))

    def forward(self, levels: Any, strides: Sequence[int] | None = None) -> dict[int, torch.Tensor]:
        """
        Args:
            levels: of an image, see :class:`~scripts.networks.Levels`.
            strides: which of the levels; None for all.

        Returns:
            descriptors ``(B, width, d, h, w)`` by stride, of any length.
        """
        wanted = self.strides if strides is None else strides
        return {
            stride: self.projections[self.strides.index(stride)](decoder_level(levels, stride)) for stride in wanted
        }

    def temperature(self, stride: int) -> torch.Tensor:
        """The temperature of a level, a scalar."""
        return self.log_temperature[self.strides.index(stride)].exp()
