# SPDX-License-Identifier: Apache-2.0
"""Local matching by convolution of the concatenated local features, and local heads one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from monai.networks.layers.factories import Conv
from monai.networks.nets.basic_unet import TwoConv
from torch import nn

from ..spatial.warp import compose, exponential, warp
from .blocks import LEAKY_RELU, after_first, group_norm, initialise
from .cpu import part_convolutions
from .matching_head import LocalHead
from .recorded import recorded


@recorded
class DeformableHead(LocalHead):
    """
    Deformable matching: double convolution over the concatenated local features, then a convolution to the
    displacement.

    The last layer starts at zero, so training starts at the identity.

    Args:
        in_channels: channels of ONE image's local features.
        hidden_channels: channels of the double convolution.
        spatial_dims: 2 or 3.
        velocity_steps: 0 takes the output for the displacement; n takes it for a stationary velocity field, integrated
            by n squarings, which keeps the map from folding.
    """

    def __init__(
        self, in_channels: int = 32, hidden_channels: int = 16, spatial_dims: int = 3, velocity_steps: int = 0
    ) -> None:
        super().__init__()
        norm = group_norm(hidden_channels)
        self.conv = TwoConv(spatial_dims, 2 * in_channels, hidden_channels, act=LEAKY_RELU, norm=norm, bias=True)
        initialise(self.conv)
        self.displacement = Conv[Conv.CONV, spatial_dims](hidden_channels, spatial_dims, kernel_size=3, padding=1)
        initialise(self.displacement)
        nn.init.zeros_(self.displacement.weight)
        nn.init.zeros_(self.displacement.bias)
        self.velocity_steps = velocity_steps

    def field(self, moving: torch.Tensor, fixed: torch.Tensor) -> torch.Tensor:
        """See :meth:`LocalHead.field`."""
        field = self.displacement(self.hidden(moving, fixed)).float()
        return exponential(field, self.velocity_steps) if self.velocity_steps else field

    def hidden(self, moving: torch.Tensor, fixed: torch.Tensor) -> torch.Tensor:
        """What the displacement is read from: the double convolution of both, ``(B, hidden channels, D, H, W)``."""
        first: Any = self.conv.conv_0
        of_moving, of_fixed = part_convolutions(first.conv, moving.shape[1], fixed.shape[1])
        moving = torch.empty_like(fixed).copy_(moving)  # in the memory layout of the fixed one, else copied twice later
        return self.second(of_moving(moving).add_(of_fixed(fixed)))

    def second(self, features: torch.Tensor) -> torch.Tensor:
        """What follows the first convolution: ``(B, hidden channels, D, H, W)`` both."""
        return after_first(self.conv, features)


@recorded
class CascadeHead(LocalHead):
    """
    Local heads one after the other: the moving features are warped by what was found so far, the next head matches
    them once more, and the maps are composed.

    Correlation first: it needs features that agree between subjects. A convolution after it: it is not bound to the
    correlation's half size and radius.

    Args:
        stages: heads, such as :class:`~scripts.networks.CorrelationHead` and :class:`DeformableHead`.
    """

    def __init__(self, stages: Sequence[LocalHead]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)

    def field(self, moving: torch.Tensor, fixed: torch.Tensor) -> torch.Tensor:
        """See :meth:`LocalHead.field`."""
        first, *others = cast(list[LocalHead], list(self.stages))
        field = first.field(moving, fixed)
        for stage in others:
            field = compose(field, stage.field(warp(moving, field), fixed))
        return field
