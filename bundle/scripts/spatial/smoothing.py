# SPDX-License-Identifier: Apache-2.0
"""Smoothing by small boxes."""

from __future__ import annotations

import torch


def box_mean(image: torch.Tensor, times: int = 1) -> torch.Tensor:
    """
    Mean over 3 voxels along each axis, the border repeated: sums of neighbours, several times faster on a CPU than
    ``avg_pool3d``.

    Args:
        image: ``(B, C, D, H, W)``.
        times: how often; n times is about a Gaussian of sigma ``sqrt(2 n / 3)`` voxels.

    Returns:
        of the same shape.
    """
    for _ in range(times):
        for axis in range(2, image.dim()):
            last = image.shape[axis] - 1
            before = torch.cat([image.narrow(axis, 0, 1), image.narrow(axis, 0, last)], dim=axis)
            after = torch.cat([image.narrow(axis, 1, last), image.narrow(axis, last, 1)], dim=axis)
            image = (before + image + after) / 3
    return image
