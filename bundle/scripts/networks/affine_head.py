# SPDX-License-Identifier: Apache-2.0
"""Global matching by regression: the affine map from the concatenated global features."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from monai.networks.nets.basic_unet import TwoConv
from torch import nn

from ..errors import InputError
from ..spatial.warp import affine_about_centre, linear_matrix
from .blocks import LEAKY_RELU, group_norm, initialise
from .known_map import KnownMap
from .levels import Levels
from .recorded import recorded


@recorded
class AffineHead(nn.Module):
    """
    Affine matching from the concatenated global features: double convolution, global average pooling, one linear layer
    to rotation, scale, shear and translation (15 numbers in 3D, 7 in 2D), each bounded smoothly by a hyperbolic
    tangent.

    The last layer starts at zero, so training starts at the identity.

    Args:
        in_channels: channels of ONE image's global features.
        hidden_channels: channels of the double convolution.
        spatial_dims: 2 or 3.
        spacing: voxel size in millimetres, so that rotations are rigid on anisotropic grids; 1 without one.
        max_rotation: radians.
        max_scale: largest change of scale, 0.25 for 0.75 to 1.25.
        max_shear: radians.
        max_translation: as a fraction of the volume's extent along each axis.
        relative: give the last layer the difference from what it would see of the fixed image paired with itself; False
            is the paper's head. The mean of a normalised map varies by a few per cent with the pose, and from the mean
            itself rotations are learned much more slowly.
    """

    def __init__(
        self,
        in_channels: int = 512,
        hidden_channels: int = 256,
        spatial_dims: int = 3,
        spacing: Sequence[float] | None = None,
        max_rotation: float = math.pi / 9,
        max_scale: float = 0.25,
        max_shear: float = math.pi / 18,
        max_translation: float = 0.5,
        relative: bool = True,
    ) -> None:
        super().__init__()
        if not 0 <= max_scale < 1 or not 0 <= max_shear < math.pi / 2:
            raise InputError(f"max_scale {max_scale} must be in [0, 1) and max_shear {max_shear} below a right angle")
        if spacing is not None and (len(spacing) != spatial_dims or min(spacing) <= 0):
            raise InputError(f"spacing {list(spacing)} must be {spatial_dims} positive numbers")
        norm = group_norm(hidden_channels)
        self.conv = TwoConv(spatial_dims, 2 * in_channels, hidden_channels, act=LEAKY_RELU, norm=norm, bias=True)
        initialise(self.conv)
        n = spatial_dims
        self.counts = [3 if n == 3 else 1, n, n * (n - 1), n]
        self.bounds = [max_rotation, max_scale, max_shear, max_translation]
        self.parameters_of_map = nn.Linear(hidden_channels, sum(self.counts))
        nn.init.zeros_(self.parameters_of_map.weight)
        nn.init.zeros_(self.parameters_of_map.bias)
        self.spacing = None if spacing is None else tuple(spacing)
        self.relative = relative

    def forward(self, fixed: Levels, moving: Levels, known: KnownMap | None = None) -> dict[str, torch.Tensor]:
        """
        Args:
            fixed: the fixed image and its features.
            moving: the moving image and its features.
            known: the known maps of a training step; not used.

        Returns:
            ``affine``, see :meth:`affine`.
        """
        return {"affine": self.affine(moving.bottleneck, fixed.bottleneck, fixed.local.shape[2:])}

    def affine(self, moving: torch.Tensor, fixed: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
        """
        Args:
            moving: global features of the moving image, ``(B, C, d, h, w)``.
            fixed: global features of the fixed image, ``(B, C, d, h, w)``.
            size: spatial size of the images, N integers.

        Returns:
            ``(B, N, N + 1)`` in float32, voxels of the fixed grid to voxels of the moving image.
        """
        pairs = [torch.cat([image, fixed], dim=1) for image in ([moving, fixed] if self.relative else [moving])]
        pooled = self.conv(torch.cat(pairs)).flatten(2).float().mean(dim=2)
        if self.relative:
            pooled = pooled[: len(fixed)] - pooled[len(fixed) :]
        raw = self.parameters_of_map(pooled).float()
        with torch.autocast(raw.device.type, enabled=False):
            parts = [bound * part.tanh() for bound, part in zip(self.bounds, raw.split(self.counts, 1), strict=True)]
            rotation, scale, shear, translation = parts
            extent = torch.as_tensor(list(size)).to(raw)
            if self.spacing is not None:
                extent = extent * torch.as_tensor(self.spacing).to(raw)
            linear = linear_matrix(rotation, 1 + scale, shear)
            return affine_about_centre(linear, translation * extent, size, self.spacing)
