# SPDX-License-Identifier: Apache-2.0
"""The local part of Z-matching: correlation from coarse to fine over the decoder's levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import torch
from torch import nn

from ..errors import InputError
from ..spatial.level_grid import from_level, inverse_on_level, level_positions, on_level, to_level
from ..spatial.linear_maps import leads_back
from ..spatial.smoothing import box_mean
from ..spatial.tissue import middle, tissue
from ..spatial.warp import apply_affine, compose, inverse_affine, sample, vector
from .correlation_head import expected_offset
from .known_map import KnownMap
from .levels import Levels
from .place_descriptors import LevelDescriptors, unit_length
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
    ) -> dict[str, torch.Tensor]:
        """
        Args:
            fixed: the fixed image and its features, see :class:`~scripts.networks.Levels`.
            moving: the moving image and its features.
            affine: fixed voxels to moving voxels, ``(B, N, N + 1)``; None for the identity.
            known: the known maps of a training step, from whose ``start`` such pairs begin.
            start: a displacement in the affine-aligned frame that was found on a coarser grid, ``(B, N, D, H, W)``
                voxels, to go on from: the coarsest level is left out then. None to begin with 0.

        Returns:
            ``local_displacement`` ``u`` in the affine-aligned frame, ``(B, N, D, H, W)`` in voxels: the whole map is
            ``A(p + u(p))``.
        """
        strides = self._strides(start)
        if known is not None:
            start = known.where(known.start, torch.zeros_like(known.start))
        size, found, before = fixed.local.shape[2:], start, 1
        if affine is None:
            affine = torch.eye(len(size), len(size) + 1, device=fixed.local.device).repeat(len(fixed.local), 1, 1)
        ahead, behind = self.shapes(fixed, strides), self.shapes(moving, strides)
        with torch.autocast(affine.device.type, enabled=False):
            for stride in strides:
                asked, places = (unit_length(of[stride]) for of in (ahead, behind))
                local = self._begin(found, before, size, asked.shape[2:], stride, affine)
                found, before = self._on_level(asked, places, local, size, stride, affine), stride
            assert found is not None
            return {"local_displacement": found if before == 1 else from_level(found, size, before)}

    def both_ways(
        self, fixed: Levels, moving: Levels, affine: torch.Tensor, start: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """
        Matched there and back: on all levels but the finest the mean of the map found from fixed to moving and the
        inverse of the one found from moving to fixed. What one way alone says counts half, so that maps are smoother,
        fold less and agree there and back.

        Args:
            fixed: see :meth:`forward`.
            moving: see :meth:`forward`.
            affine: fixed voxels to moving voxels, ``(B, N, N + 1)``.
            start: see :meth:`forward`.

        Returns:
            ``local_displacement``, see :meth:`forward`.
        """
        size, before, strides = fixed.local.shape[2:], 1, self._strides(start)
        affine = affine.float()
        inverse, there, back = inverse_affine(affine), start, None
        levels = [self.shapes(of, strides) for of in (fixed, moving)]
        with torch.autocast(affine.device.type, enabled=False):
            for stride in strides:
                one, other = (unit_length(of[stride]) for of in levels)
                begun = self._begin(there, before, size, one.shape[2:], stride, affine)
                there = self._on_level(one, other, begun, size, stride, affine)
                if stride != strides[-1]:
                    if back is None:
                        back = inverse_on_level(begun, inverse, size, stride)
                    else:
                        back = self._begin(back, before, size, one.shape[2:], stride, inverse)
                    back = self._on_level(other, one, back, size, stride, inverse)
                    there, back = (
                        (there + inverse_on_level(back, affine, size, stride)) / 2,
                        (back + inverse_on_level(there, inverse, size, stride)) / 2,
                    )
                before = stride
            assert there is not None
            return {"local_displacement": there if before == 1 else from_level(there, size, before)}

    @torch.no_grad()
    def best_start(
        self, fixed: Levels, moving: Levels, affine: torch.Tensor | None, gain: float, largest: float
    ) -> torch.Tensor:
        """
        Where matching goes best from, for a pair whose affine map is in doubt: that map, or the best shift, if it makes
        the images more alike. Shifts are tried from none on, always to the best one of those a voxel of the coarsest
        level further along one axis. To tell how alike they are, the images are matched one way on all levels but the
        finest, there and back, and the finest level's descriptors compared; those in the middle count for more, since a
        scan is centred on what it was taken for.

        Args:
            fixed: see :meth:`forward`; a batch of one.
            moving: see :meth:`forward`.
            affine: the map in doubt, fixed voxels to moving voxels, ``(1, N, N + 1)``; None for a shift in any case.
            gain: of the mean dot product, from which a further shift is taken.
            largest: shift, as a share of the image along each axis.

        Returns:
            ``affine`` itself, or a shift, of the same shape.
        """
        size, strides = fixed.local.shape[2:], self.shapes.strides
        described = [self.shapes(of, strides) for of in (fixed, moving)]
        with torch.autocast(fixed.local.device.type, enabled=False):
            ahead, behind = ({stride: unit_length(of[stride]) for stride in strides} for of in described)
            level, centred = ahead[strides[-1]].shape[2:], middle(size, fixed.local)
            here, there = (on_level(tissue(of.image) * centred, level, strides[-1], "zeros") for of in (fixed, moving))

            def alike(start: torch.Tensor) -> float:
                back = self._likeness(behind, ahead, inverse_affine(start), there, size)
                return (self._likeness(ahead, behind, start, here, size) + back) / 2

            @cache
            def by(shift: tuple[int, ...]) -> float:
                return alike(_shifted_by(shift, here))

            best: tuple[int, ...] = (0,) * len(size)
            while True:
                further = max(_neighbours(best, strides[0], [largest * n for n in size]), key=by, default=best)
                if by(further) <= by(best) + gain:
                    break
                best = further
            if affine is not None and leads_back(affine[:, :, :-1]) and alike(affine.float()) >= by(best):
                return affine
            return _shifted_by(best, here)

    def _likeness(
        self,
        ahead: Mapping[int, torch.Tensor],
        behind: Mapping[int, torch.Tensor],
        affine: torch.Tensor,
        weight: torch.Tensor,
        size: Sequence[int],
    ) -> float:
        """Mean dot product of the finest level's descriptors, by weight, matched from an affine map on the others."""
        found, before, strides = None, 1, self.shapes.strides
        for stride in strides[:-1]:
            local = self._begin(found, before, size, ahead[stride].shape[2:], stride, affine)
            found, before = self._on_level(ahead[stride], behind[stride], local, size, stride, affine), stride
        stride, level = strides[-1], ahead[strides[-1]].shape[2:]
        local = self._begin(found, before, size, level, stride, affine)
        position = apply_affine(affine, level_positions(size, level, stride, affine) + local)
        aligned = sample(behind[stride], to_level(position, size, level, stride), padding_mode="border")
        last = vector(size, position).reshape(-1, *[1] * len(size)) - 0.5
        weight = weight * ((position > -0.5) & (position < last)).all(dim=1, keepdim=True)
        return float(((ahead[stride] * aligned).sum(dim=1, keepdim=True) * weight).sum() / weight.sum().clamp(min=1e-6))

    def _strides(self, start: torch.Tensor | None) -> Sequence[int]:
        return self.shapes.strides if start is None else self.shapes.strides[1:] or self.shapes.strides

    def _on_level(
        self,
        asked: torch.Tensor,
        places: torch.Tensor,
        local: torch.Tensor,
        size: Sequence[int],
        stride: int,
        affine: torch.Tensor,
    ) -> torch.Tensor:
        """One level's offsets composed with what was found before, ``(B, N, *level)`` in voxels of the image."""
        level = asked.shape[2:]
        position = apply_affine(affine, level_positions(size, level, stride, affine) + local)
        aligned = sample(places, to_level(position, size, level, stride), padding_mode="border")
        offset = expected_offset(asked / self.shapes.temperature(stride), aligned, self.radii[stride])
        return stride * compose(local / stride, box_mean(offset, self.smoothings))

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


def _shifted_by(shift: Sequence[int], like: torch.Tensor) -> torch.Tensor:
    """The affine map ``(1, N, N + 1)`` of a shift in voxels."""
    matrix = torch.eye(len(shift), len(shift) + 1, device=like.device)
    matrix[:, -1] = vector(shift, matrix)
    return matrix[None]


def _neighbours(shift: tuple[int, ...], step: int, largest: Sequence[float]) -> list[tuple[int, ...]]:
    """The shifts that are a step further along one axis, none beyond the largest."""
    moved = [
        (*shift[:axis], shift[axis] + sign * step, *shift[axis + 1 :]) for axis in range(len(shift)) for sign in (-1, 1)
    ]
    return [other for other in moved if all(abs(a) <= most for a, most in zip(other, largest, strict=True))]
