# SPDX-License-Identifier: Apache-2.0
"""The Z-matching head (affine + deformable matching) and the restoration head (paper, section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.networks.blocks import Convolution
from monai.networks.layers.factories import Conv
from monai.networks.nets.basic_unet import TwoConv
from torch import nn

from ..errors import InputError
from ..spatial.warp import affine_about_centre, affine_displacement, exponential, fuse, linear_matrix, warp
from .blocks import LEAKY_RELU, after_first, group_norm, initialise
from .correlation_head import CascadeHead, CorrelationHead
from .cpu import part_convolutions


def match(
    affine_head: nn.Module | None,
    deformable_head: nn.Module,
    fixed: Sequence[torch.Tensor],
    moving: Sequence[torch.Tensor],
) -> dict[str, torch.Tensor]:
    """
    Z-matching: an affine map from the global features, then a displacement field from the local features, the moving
    ones aligned by that map; both fused as ``A(p + u(p))``.

    Args:
        affine_head: (moving f^g, fixed f^g, size) to ``(B, N, N + 1)``; None for the identity.
        deformable_head: (moving f^l aligned, fixed f^l) to ``(B, N, D, H, W)`` voxels.
        fixed: global ``(B, Cg, d, h, w)`` and local ``(B, Cl, D, H, W)`` features of the fixed image.
        moving: the same of the moving image.

    Returns:
        ``affine`` ``(B, N, N + 1)``, ``local_displacement`` and ``displacement`` ``(B, N, D, H, W)``, in voxels.
    """
    (fixed_global, fixed_local), (moving_global, moving_local) = fixed, moving
    size = fixed_local.shape[2:]
    if affine_head is None:
        affine = torch.eye(len(size), len(size) + 1, device=fixed_local.device).repeat(len(fixed_local), 1, 1)
        aligned = moving_local
    else:
        affine = affine_head(moving_global, fixed_global, size)
        aligned = warp(moving_local, affine_displacement(affine, size))
    local_displacement = deformable_head(aligned, fixed_local)
    displacement = fuse(affine, local_displacement)
    return {"affine": affine, "local_displacement": local_displacement, "displacement": displacement}


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

    def forward(self, moving: torch.Tensor, fixed: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
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


class DeformableHead(nn.Module):
    """
    Deformable matching: double convolution over the concatenated local features, then a convolution to the
    displacement.

    The last layer starts at zero, so training starts at the identity.

    Args:
        in_channels: channels of ONE image's local features.
        hidden_channels: channels of the double convolution.
        spatial_dims: 2 or 3.
        velocity_steps: 0 takes the output for the displacement; n takes it for a stationary velocity field, integrated
            by n squarings, which keeps the map from folding.
    """

    def __init__(
        self, in_channels: int = 32, hidden_channels: int = 16, spatial_dims: int = 3, velocity_steps: int = 0
    ) -> None:
        super().__init__()
        norm = group_norm(hidden_channels)
        self.conv = TwoConv(spatial_dims, 2 * in_channels, hidden_channels, act=LEAKY_RELU, norm=norm, bias=True)
        initialise(self.conv)
        self.displacement = Conv[Conv.CONV, spatial_dims](hidden_channels, spatial_dims, kernel_size=3, padding=1)
        initialise(self.displacement)
        nn.init.zeros_(self.displacement.weight)
        nn.init.zeros_(self.displacement.bias)
        self.velocity_steps = velocity_steps

    def forward(self, moving: torch.Tensor, fixed: torch.Tensor) -> torch.Tensor:
        """
        Args:
            moving: local features of the moving image, aligned by the affine map, ``(B, C, D, H, W)``.
            fixed: local features of the fixed image, ``(B, C, D, H, W)``.

        Returns:
            ``(B, N, D, H, W)`` in voxels.
        """
        field = self.displacement(self.hidden(moving, fixed)).float()
        return exponential(field, self.velocity_steps) if self.velocity_steps else field

    def hidden(self, moving: torch.Tensor, fixed: torch.Tensor) -> torch.Tensor:
        """What the displacement is read from: the double convolution of both, ``(B, hidden channels, D, H, W)``."""
        first: Any = self.conv.conv_0
        of_moving, of_fixed = part_convolutions(first.conv, moving.shape[1], fixed.shape[1])
        moving = torch.empty_like(fixed).copy_(moving)  # in the memory layout of the fixed one, else copied twice later
        return self.second(of_moving(moving).add_(of_fixed(fixed)))

    def second(self, features: torch.Tensor) -> torch.Tensor:
        """What follows the first convolution: ``(B, hidden channels, D, H, W)`` both."""
        return after_first(self.conv, features)


def deformable_head(kind: str, settings: Mapping[str, Mapping[str, Any]], **common: Any) -> nn.Module:
    """
    The deformable head of that name.

    Args:
        kind: "convolution" for :class:`DeformableHead`, the paper's, or "correlation" for
            :class:`~scripts.networks.CorrelationHead`, or "cascade" for the second and then the first.
        settings: arguments of each kind; the cascade has none of its own.
        common: arguments of both: ``in_channels``, ``spatial_dims``, ``velocity_steps``.

    Returns:
        called with the moving and the fixed local features, it gives the displacement.

    Raises:
        InputError: for another name.
    """
    kinds = {"convolution": DeformableHead, "correlation": CorrelationHead}
    if kind == "cascade":
        return CascadeHead([kinds[name](**common, **settings[name]) for name in ("correlation", "convolution")])
    if kind not in kinds:
        raise InputError(f"matching_head is 'convolution', 'correlation' or 'cascade', not '{kind}'")
    return kinds[kind](**common, **settings[kind])


class ZMatchingHead(nn.Module):
    """
    The whole matching head, for any backbone that gives global and local features.

    Args:
        affine_head: see :class:`AffineHead`; None for deformable matching alone.
        deformable_head: see :class:`DeformableHead`.
    """

    def __init__(self, affine_head: nn.Module | None, deformable_head: nn.Module) -> None:
        super().__init__()
        self.affine_head = affine_head
        self.deformable_head = deformable_head

    def forward(
        self, fixed: tuple[torch.Tensor, torch.Tensor], moving: tuple[torch.Tensor, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """See :func:`match`."""
        return match(self.affine_head, self.deformable_head, fixed, moving)


class RestorationHead(nn.Sequential):
    """
    Self-restoration: 3x3x3 convolution, GroupNorm with 4 channels a group, LeakyReLU, 1x1x1 convolution.

    Args:
        in_channels: channels of the local features.
        out_channels: channels of the image.
        hidden_channels: channels between the two convolutions.
        spatial_dims: 2 or 3.
    """

    def __init__(
        self,
        in_channels: int = 32,
        out_channels: int = 1,
        hidden_channels: int = 16,
        spatial_dims: int = 3,
    ) -> None:
        norm = group_norm(hidden_channels, channels_per_group=4)
        super().__init__(
            Convolution(spatial_dims, in_channels, hidden_channels, act=LEAKY_RELU, norm=norm, adn_ordering="NA"),
            Conv[Conv.CONV, spatial_dims](hidden_channels, out_channels, kernel_size=1),
        )
        initialise(self)
