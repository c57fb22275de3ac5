# SPDX-License-Identifier: Apache-2.0
"""Smoothing of images and fields."""

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


def gaussian(field: torch.Tensor, sigma: float) -> torch.Tensor:
    """
    Gaussian smoothing; the kernel is cut off at the border and its sum kept at 1.

    Args:
        field: ``(B, C, D, H, W)``.
        sigma: in voxels; 0 leaves the field as it is.

    Returns:
        of the same shape.
    """
    if sigma <= 0:
        return field
    for axis in range(2, field.dim()):
        index = torch.arange(field.shape[axis], device=field.device, dtype=field.dtype)
        distance = index[:, None] - index
        kernel = torch.exp(-(distance**2) / (2 * sigma**2)) * (distance.abs() <= 3 * sigma + 1)
        kernel = kernel / kernel.sum(dim=1, keepdim=True)
        last = axis == field.dim() - 1
        field = field @ kernel.T if last else (kernel @ field.flatten(axis + 1)).reshape(field.shape)
    return field
