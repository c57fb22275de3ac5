# SPDX-License-Identifier: Apache-2.0
"""What the backbone and the heads share: activation, normalisation, initialisation, convolutions of one volume."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.networks.nets.basic_unet import UpCat
from torch import nn

from .cpu import SmallVolumeConv3d, part_convolutions

LEAKY_RELU = ("leakyrelu", {"negative_slope": 0.2, "inplace": True})


def group_norm(channels: int, channels_per_group: int = 8) -> tuple[str, dict]:
    """
    MONAI's description of a GroupNorm with that many channels a group, or the next larger number that divides them.
    """
    wanted = max(1, channels // channels_per_group)
    return "group", {"num_groups": next(n for n in range(wanted, 0, -1) if channels % n == 0)}


def padding_to_multiple(size: list[int], multiple: int) -> list[int]:
    """
    Zeros before and after each axis that make its length a multiple, last axis first.

    Args:
        size: lengths of the axes.
        multiple: of which each length becomes one.

    Returns:
        two numbers an axis, as ``torch.nn.functional.pad`` takes them.
    """
    zeros: list[int] = []
    for n in size[::-1]:
        missing = -n % multiple
        zeros += [missing // 2, missing - missing // 2]
    return zeros


def after_first(convs: Any, features: torch.Tensor) -> torch.Tensor:
    """What follows the first convolution of a ``TwoConv``: ``(B, out channels, D, H, W)`` both."""
    return convs.conv_1(convs.conv_0.adn(features))


class UpJoin(UpCat):
    """MONAI's ``UpCat``: the same sums and weights, but up-sampled and skipped features are not concatenated."""

    def forward(self, x: torch.Tensor, x_e: torch.Tensor | None) -> torch.Tensor:
        """
        Args:
            x: features of the level below, ``(B, C, d, h, w)``.
            x_e: those of the encoder at this level, ``(B, K, D, H, W)``, or None.

        Returns:
            ``(B, out channels, D, H, W)``.
        """
        if torch.jit.is_scripting():
            above = self.upsample(x)
            return self.convs(above if x_e is None else torch.cat([x_e, above], dim=1))
        elif x_e is None:
            return self.convs(self.upsample(x))
        else:
            return self.second(self.first(x, x_e))

    @torch.jit.unused
    def first(self, below: torch.Tensor, skipped: torch.Tensor) -> torch.Tensor:
        """The first convolution, of :meth:`forward`'s ``x`` and ``x_e``: ``(B, out channels, D, H, W)``."""
        convs: Any = self.convs
        kept = skipped.shape[1]
        of_skipped, of_above = part_convolutions(convs.conv_0.conv, kept, convs.conv_0.conv.in_channels - kept)
        return of_skipped(skipped).add_(self.above(below, of_above))

    @torch.jit.unused
    def above(self, below: torch.Tensor, convolution: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """The up-sampled features' part of it: ``(B, C, d, h, w)`` to ``(B, out channels, D, H, W)``."""
        return convolution(self.upsample(below))

    @torch.jit.unused
    def second(self, features: torch.Tensor) -> torch.Tensor:
        """What follows the first convolution: ``(B, out channels, D, H, W)`` both."""
        return after_first(self.convs, features)


def _is_common(layer: nn.Conv3d) -> bool:
    """3x3x3, stride 1, padded by zeros to the same size, no groups."""
    ones = layer.padding == layer.stride == layer.dilation == (1, 1, 1)
    return ones and layer.kernel_size == (3, 3, 3) and layer.groups == 1 and layer.padding_mode == "zeros"


def initialise(module: nn.Module, negative_slope: float = 0.2) -> None:
    """
    Kaiming-normal weights and zero biases for every convolution, in place.

    MONAI's blocks make plain convolutions; those of 3x3x3 become :class:`SmallVolumeConv3d`, with the same weights.
    """
    for layer in module.modules():
        if type(layer) is nn.Conv3d and _is_common(layer):
            layer.__class__ = SmallVolumeConv3d
        if isinstance(layer, (nn.Conv2d, nn.Conv3d)):
            nn.init.kaiming_normal_(layer.weight, a=negative_slope, nonlinearity="leaky_relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
