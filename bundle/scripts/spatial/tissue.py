# SPDX-License-Identifier: Apache-2.0
"""Where a scan shows something."""

from __future__ import annotations

import torch

from .smoothing import box_mean


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
