# SPDX-License-Identifier: Apache-2.0
"""Where a scan shows something, and how near that is to its middle."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .smoothing import box_mean
from .warp import vector, voxel_grid


def tissue(image: torch.Tensor, threshold: float = 0.04) -> torch.Tensor:
    """
    Where the mean of 3x3x3 voxels lies above a share of the intensity range: not in air, nor in padding by zeros.

    Args:
        image: ``(B, C, D, H, W)`` within 0..1.
        threshold: share of the range.

    Returns:
        ``(B, 1, D, H, W)`` in float32, 1 and 0.
    """
    return (box_mean(image.float().mean(dim=1, keepdim=True)) > threshold).float()


def middle(size: Sequence[int], like: torch.Tensor) -> torch.Tensor:
    """
    Weights that fall from the middle of an image to its borders, ``exp(-2 r^2)``, r along each axis in halves of it.

    Args:
        size: of the image, N integers.
        like: a tensor whose device and dtype are taken.

    Returns:
        ``(1, 1, *size)``.
    """
    half = vector([(n - 1) / 2 for n in size], like).reshape(-1, *[1] * len(size))
    away = (voxel_grid(size, like) - half) / half.clamp(min=0.5)
    return (-2 * away.square().sum(dim=0)).exp()[None, None]
