# SPDX-License-Identifier: Apache-2.0
"""Descriptors of the decoder's levels, to be compared between scans."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from monai.networks.layers.factories import Conv
from torch import nn

from ..errors import InputError
from .levels import Levels


def decoder_level(levels: Levels, stride: int) -> torch.Tensor:
    """
    The decoder's features of one size.

    Args:
        levels: of an image, see :class:`~scripts.networks.Levels`.
        stride: 1 for f^l, 2 for half the size, 4 for a quarter.

    Returns:
        ``(B, C, d, h, w)``.
    """
    return levels.local if stride == 1 else levels.decoder[-(stride.bit_length() - 1)]


def unit_length(descriptors: torch.Tensor) -> torch.Tensor:
    """
    ``torch.nn.functional.normalize``, in a third of the time where channels do not come last.

    Args:
        descriptors: ``(B, C, ...)`` of any length.

    Returns:
        of the same shape, of length 1 along the channels, in float32.
    """
    descriptors = descriptors.float()
    return descriptors * descriptors.square().sum(dim=1, keepdim=True).clamp(min=1e-24).rsqrt()


class LevelDescriptors(nn.Module):
    """
    1x1x1 projections of some of the decoder's levels, and a learned temperature for each, of the softmax over places.

    Args:
        features: channels of the backbone's levels, from full size down.
        strides: of the levels that are described: 1 for f^l, 2 for half the size, 4 for a quarter. Those coarser than
            all levels of the decoder are left out.
        widths: channels of their descriptors.
        spatial_dims: 2 or 3.
        temperature: at the start.

    Raises:
        InputError: for strides that are no powers of 2, or none of which the decoder has.
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
        if len(widths) != len(strides):
            raise InputError(f"levels of the strides {list(strides)} need a width each, not {list(widths)}")
        coarsest = 1 << (len(features) - 2)
        there = [(stride, width) for stride, width in zip(strides, widths, strict=True) if stride <= coarsest]
        if not there or any(stride < 1 or stride.bit_count() != 1 for stride in strides):
            raise InputError(f"strides are powers of 2, and one of them at most {coarsest} here, not {list(strides)}")
        self.strides = tuple(stride for stride, _ in there)
        self.projections = nn.ModuleList(
            Conv[Conv.CONV, spatial_dims](features[stride.bit_length() - 1], width, kernel_size=1)
            for stride, width in there
        )
        self.log_temperature = nn.Parameter(torch.full((len(self.strides),), math.log(temperature)))

    def forward(self, levels: Levels, strides: Sequence[int] | None = None) -> dict[int, torch.Tensor]:
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
