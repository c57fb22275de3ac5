# SPDX-License-Identifier: Apache-2.0
"""The spatial transformer that warps the moving image by the predicted displacement field."""

from __future__ import annotations

import torch
from torch import nn

from ..spatial.warp import warp
from .recorded import recorded


@recorded
class SpatialTransformer(nn.Module):
    """
    Samples an image at displaced positions, ``warped(p) = image(p + displacement(p))``, once.

    Args:
        mode: ``"bilinear"`` (trilinear in 3D) or ``"nearest"``.
        padding_mode: what lies outside the image: ``"zeros"`` or ``"border"``.
    """

    def __init__(self, mode: str = "bilinear", padding_mode: str = "zeros") -> None:
        super().__init__()
        self.mode, self.padding_mode = mode, padding_mode

    def forward(self, image: torch.Tensor, displacement: torch.Tensor) -> torch.Tensor:
        """``(B, C, D, H, W)`` and ``(B, N, D, H, W)`` in voxels to ``(B, C, D, H, W)``."""
        return warp(image, displacement, self.mode, self.padding_mode)
