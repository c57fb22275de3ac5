# SPDX-License-Identifier: Apache-2.0
"""The local part of Z-matching: correlation from coarse to fine over the decoder's levels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from ..errors import InputError
from ..spatial.level_grid import from_level, level_positions, on_level, to_level
from ..spatial.smoothing import box_mean
from ..spatial.warp import compose, sample
from .correlation_head import expected_offset
from .known_map import KnownMap
from .levels import Levels
from .place_descriptors import LevelDescriptors
from .recorded import recorded


@recorded
class LocalMatchingHead(nn.Module):
    """
    Deformable matching by correlation on several levels. On each, the moving image's descriptors are sampled by the map
    found so far; the expected offset under the softmax of the similarities within a radius, smoothed by small boxes, is
    composed with it.

    Args:
        features: channels of the backbone's levels, from full size down.
        strides: of the levels, from coarse to fine; 1 for f^l. Those coarser than all levels of the decoder are left
            out.
        radii: largest offset on each level, in its voxels.
        widths: channels of the descriptors.
        smoothings: how often a level's offsets are averaged over 3 voxels along each axis.
        spatial_dims: 2 or 3.
        temperature: of the softmax, at the start; learned for each level.

    Raises:
        InputError: for strides that do not fall, or radii below 1.
    """

    def __init__(
        self,
        features: Sequence[int],
        strides: Sequence[int] = (4, 2, 1),
        radii: Sequence[int] = (2, 2, 1),
        widths: Sequence[int] = (32, 32, 16),
        smoothings: int = 2,
        spatial_dims: int = 3,
        temperature: float = 0.1,
    ) -> None:
        super().__init__()
        if list(strides) != sorted(set(strides), reverse=True) or len(radii) != len(strides) or min(radii) < 1:
            raise InputError(
                f"local matching needs strides from coarse to fine, each with a radius of 1 or more: {list(strides)}, "
                f"{list(radii)}"
            )
        self.shapes = LevelDescriptors(features, strides, widths, spatial_dims, temperature)
        self.radii = dict(zip(strides, radii, strict=True))
        self.smoothings = smoothings

    def forward(
        self,
        fixed: Levels,
        moving: Levels,
        affine: torch.Tensor | None,
        known: KnownMap | None = None,
        start: torch.Tensor | None = None,
        strides: Sequence[int] | None = None,
    ) -> dict[str, torch.Tensor]:
        """
        Args:
            fixed: the fixed image and its features, see :class:`~scripts.networks.Levels`.
            moving: the moving image and its features.
            affine: fixed voxels to moving voxels, ``(B, N, N + 1)``; None for the identity.
            known: the known maps of a training step, from whose ``start`` such pairs begin.
            start: a displacement in the affine-aligned frame to begin with, ``(B, N, D, H, W)`` voxels; None for 0.
            strides: of the levels that are matched, from coarse to fine; None for all.

        Returns:
            ``local_displacement`` ``u`` in the affine-aligned frame, ``(B, N, D, H, W)`` in voxels: the whole map is
            ``A(p + u(p))``.
        """
        if known is not None:
            start = known.where(known.start, torch.zeros_like(known.start))
        size, found, before = fixed.local.shape[2:], start, 1
        if affine is None:
            affine = torch.eye(len(size), len(size) + 1, device=fixed.local.device).repeat(len(fixed.local), 1, 1)
        strides = self.shapes.strides if strides is None else strides
        ahead, behind = self.shapes(fixed, strides), self.shapes(moving, strides)
        with torch.autocast(affine.device.type, enabled=False):
            for stride in strides:
                asked, places = (functional.normalize(of[stride].float(), dim=1) for of in (ahead, behind))
                level = asked.shape[2:]
                local = self._begin(found, before, size, level, stride, affine)
                position = level_positions(size, level, stride, affine) + local
                position = (affine[:, :, :-1] @ position.flatten(2) + affine[:, :, -1:]).reshape(position.shape)
                aligned = sample(places, to_level(position, size, level, stride), padding_mode="border")
                offset = expected_offset(asked / self.shapes.temperature(stride), aligned, self.radii[stride])
                found = stride * compose(local / stride, box_mean(offset, self.smoothings))
                before = stride
            assert found is not None
            return {"local_displacement": found if before == 1 else from_level(found, size, before)}

    def go_on(self, fixed: Levels, moving: Levels, affine: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        """
        The finer levels alone, from a map that was found on a coarser grid.

        Args:
            fixed: see :meth:`forward`.
            moving: see :meth:`forward`.
            affine: see :meth:`forward`.
            start: see :meth:`forward`.

        Returns:
            ``u``, ``(B, N, D, H, W)`` in voxels.
        """
        finer = self.shapes.strides[1:] or self.shapes.strides
        return self(fixed, moving, affine, None, start, finer)["local_displacement"]

    @staticmethod
    def _begin(
        found: torch.Tensor | None,
        before: int,
        size: Sequence[int],
        level: Sequence[int],
        stride: int,
        affine: torch.Tensor,
    ) -> torch.Tensor:
        """What was found so far, ``(B, N, ...)`` on a level of stride ``before``, on the next one."""
        if found is None:
            return affine.new_zeros(len(affine), affine.shape[1], *level)
        if before < stride:  # the start, at full size
            return on_level(found, level, stride)
        if stride > 1:
            return from_level(found, level, before // stride)
        return from_level(found, size, before)
