# SPDX-License-Identifier: Apache-2.0
"""How much the channels of the features repeat each other: what keeps a pre-trained network able to learn anew."""

from __future__ import annotations

import torch


def redundancy(features: torch.Tensor, epsilon: float = 1e-6) -> torch.Tensor:
    """
    Mean squared correlation of two different channels over the voxels of each image: 0 where each channel tells
    something of its own, 1 where all tell the same.

    Pre-training otherwise ends with channels that tell much the same; they match well, and are slow to fine-tune. The
    term is that of Barlow Twins (Zbontar et al., ICML 2021) within one image.

    Args:
        features: ``(B, C, D, H, W)``.
        epsilon: added to a channel's variance; a constant channel correlates with none.

    Returns:
        ``(B,)``, between 0 and 1.
    """
    with torch.autocast(features.device.type, enabled=False):
        values = features.float().flatten(2)
        mean = values.mean(dim=2, keepdim=True)
        covariance = values @ values.transpose(1, 2) / values.shape[2] - mean @ mean.transpose(1, 2)
        variance = torch.diagonal(covariance, dim1=1, dim2=2).clamp(min=0) + epsilon
        squared = covariance.square() / (variance[:, :, None] * variance[:, None])
        channels = squared.shape[1]
        itself = torch.diagonal(squared, dim1=1, dim2=2).sum(dim=1)
        return ((squared.sum(dim=(1, 2)) - itself) / max(channels * (channels - 1), 1)).clamp(0, 1)
