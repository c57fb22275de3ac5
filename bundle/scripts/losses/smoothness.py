# SPDX-License-Identifier: Apache-2.0
"""Smoothness of a displacement field."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class SmoothnessLoss(nn.Module):
    """
    Squared forward differences of a displacement field, mean per axis, averaged over the axes.

    Forward differences see a checkerboard, which central differences (``monai.losses.DiffusionLoss``) do not.
    """

    def forward(self, displacement: torch.Tensor) -> torch.Tensor:
        """
        Args:
            displacement: ``(B, N, D, H, W)`` in voxels.

        Returns:
            scalar, in squared voxels per voxel.
        """
        field = displacement.float()
        steps = [(axis, field.shape[axis] - 1) for axis in range(2, field.dim()) if field.shape[axis] > 1]
        pairs = [(field.narrow(axis, 1, n), field.narrow(axis, 0, n)) for axis, n in steps]
        return torch.stack([functional.mse_loss(ahead, here) for ahead, here in pairs]).mean()
