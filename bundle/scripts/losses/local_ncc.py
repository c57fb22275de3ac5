# SPDX-License-Identifier: Apache-2.0
"""Similarity of two images: local normalised cross-correlation within a field of view."""

from __future__ import annotations

import torch
from torch import nn

from ..errors import InputError


def box_sum(image: torch.Tensor, size: int) -> torch.Tensor:
    """
    Sum over a cubic window around each voxel, zeros outside.

    A product with a banded matrix of ones along each axis: several times faster on a CPU than separable convolutions
    and free of the rounding of running sums.

    Args:
        image: ``(B, C, D, H, W)``.
        size: odd edge of the window, in voxels.

    Returns:
        of the same shape.
    """
    for axis in range(2, image.dim()):
        index = torch.arange(image.shape[axis], device=image.device)
        band = ((index[:, None] - index).abs() <= size // 2).to(image.dtype)
        last = axis == image.dim() - 1
        image = image @ band if last else (band @ image.flatten(axis + 1)).reshape(image.shape)  # no axes to exchange
    return image


class LocalNCCLoss(nn.Module):
    """
    1 - mean squared local normalised cross-correlation.

    With ``masked``, the default, means, variances and the covariance of a window are over the voxels really inside the
    mask, and windows centred outside it do not count:
    ``1 - mean( (cov + e)^2 / ((var_a + e) (var_b + e)) )``. Two unrelated noises score ``1 / (voxels - 1)``; windows
    flat in both images count as equal, flat in one as unrelated; identical images give 0 whatever they show.

    Without it, the published form: zero-padded sums over the whole window, ``cross^2 / (var_a * var_b + e)``, which
    rewards any two images along the border.

    Always computed in float32 or better, also under autocast.

    Args:
        window: odd edge of the window, in voxels.
        epsilon: ``e``; a variance in the masked form (1e-5 is a standard deviation of 0.3 % of the intensity window), a
            product of summed variances in the published form.
        masked: which form.
    """

    def __init__(self, window: int = 9, epsilon: float = 1e-5, masked: bool = True) -> None:
        super().__init__()
        if window < 3 or window % 2 == 0:
            raise InputError(f"the NCC window must be odd and at least 3 voxels, not {window}")
        self.window, self.epsilon, self.masked = window, epsilon, masked

    def forward(self, warped: torch.Tensor, fixed: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """
        Args:
            warped: ``(B, C, D, H, W)``.
            fixed: ``(B, C, D, H, W)``.
            mask: ``(B, 1, D, H, W)``, where ``warped`` is known; None for everywhere. Only for the masked form.

        Returns:
            scalar between 0 (equal up to contrast and brightness of each window) and 1 (unrelated).
        """
        return 1 - self.per_image(warped, fixed, mask).mean()

    def per_image(self, warped: torch.Tensor, fixed: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """As :meth:`forward`, but the squared correlation (1 for equal images) of each image, ``(B,)``."""
        with torch.autocast(warped.device.type, enabled=False):
            if not self.masked:
                return self._published(*self._precise(warped, fixed))
            inside = torch.ones_like(fixed[:, :1]) if mask is None else mask
            squared = self.at_voxels(warped, fixed, mask).flatten(1)
            return squared.sum(dim=1) / (inside.flatten(1).sum(dim=1) * fixed.shape[1]).clamp(min=1)

    def at_voxels(self, warped: torch.Tensor, fixed: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """As :meth:`forward`, but the squared correlation of each window at its centre, ``(B, C, D, H, W)``; 0 outside
        the mask. The masked form."""
        with torch.autocast(warped.device.type, enabled=False):
            a, b = self._precise(warped, fixed)
            inside = torch.ones_like(b[:, :1]) if mask is None else mask.to(b)
            count = box_sum(inside, self.window).clamp(min=1)
            a, b = a * inside, b * inside
            sums = box_sum(torch.cat([a, b, a * a, b * b, a * b], dim=1), self.window) / count
            mean_a, mean_b, square_a, square_b, product = sums.split(a.shape[1], dim=1)
            # no clamp at 0: where a window is flat, variance and covariance of equal images must round alike
            variance_a = (square_a - mean_a * mean_a + self.epsilon).clamp(min=self.epsilon / 2)
            variance_b = (square_b - mean_b * mean_b + self.epsilon).clamp(min=self.epsilon / 2)
            covariance = product - mean_a * mean_b + self.epsilon
            return covariance * covariance / (variance_a * variance_b) * inside

    @staticmethod
    def _precise(*images: torch.Tensor) -> list[torch.Tensor]:
        dtype = torch.float32
        for image in images:
            dtype = torch.promote_types(dtype, image.dtype)
        return [image.to(dtype) for image in images]

    def _published(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        voxels = self.window ** (a.dim() - 2)
        sums = box_sum(torch.cat([a, b, a * a, b * b, a * b], dim=1), self.window)
        sum_a, sum_b, square_a, square_b, product = sums.split(a.shape[1], dim=1)
        variance_a = (square_a - sum_a * sum_a / voxels).clamp(min=0)
        variance_b = (square_b - sum_b * sum_b / voxels).clamp(min=0)
        cross = product - sum_a * sum_b / voxels
        return (cross * cross / (variance_a * variance_b + self.epsilon)).flatten(1).mean(dim=1)
