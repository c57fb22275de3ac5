# SPDX-License-Identifier: Apache-2.0
"""The features of several decoder levels side by side at full size: what few labels are read from."""

from __future__ import annotations

import torch
from torch.nn import functional

from .backbone import UNetBackbone


def decoder_levels(backbone: UNetBackbone, image: torch.Tensor, count: int | None = None) -> list[torch.Tensor]:
    """
    The last levels of the decoder, each at its own size, of the padded image.

    Args:
        backbone: see :class:`~scripts.networks.UNetBackbone`.
        image: ``(B, C, D, H, W)``.
        count: how many levels, from full size down; None for all.

    Returns:
        ``(B, features[k], d, h, w)`` each, full size first.
    """
    decoded = backbone.decode(backbone.encode(image))[::-1]
    return decoded[:count]


def side_by_side(backbone: UNetBackbone, image: torch.Tensor, count: int | None = None) -> torch.Tensor:
    """
    The same, enlarged to full size (corners aligned, as the backbone enlarges) and stacked as channels.

    Args:
        backbone: see :class:`~scripts.networks.UNetBackbone`.
        image: ``(B, C, D, H, W)``.
        count: how many levels, from full size down; None for all.

    Returns:
        ``(B, sum of features[:count], D, H, W)``, the channels of f^l first.
    """
    levels = decoder_levels(backbone, image, count)
    size = levels[0].shape[2:]
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(size)]
    enlarged = [levels[0]] + [
        functional.interpolate(level, size=size, mode=mode, align_corners=True) for level in levels[1:]
    ]
    return functional.pad(torch.cat(enlarged, 1), [-zeros for zeros in backbone.padding(list(image.shape[2:]))])
