# SPDX-License-Identifier: Apache-2.0
"""Contrast of places: where the map between two views is known, each position must be told from all others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional

from ..errors import InputError, check_numbers
from ..spatial.displacement import inside_volume
from ..spatial.level_grid import on_level, to_level
from ..spatial.places import BARRED, barred, place_of, places_of
from ..spatial.tissue import tissue
from ..spatial.warp import sample, vector, voxel_grid


def neighbours(position: torch.Tensor, size: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """
    The voxels around positions, and how near they are.

    Args:
        position: ``(K, N)`` in voxels; outside the grid the nearest place on its border is taken.
        size: of the grid, N integers.

    Returns:
        flat indices of the ``2^N`` voxels around each position and their (tri)linear weights, ``(K, 2^N)`` each.
    """
    last = vector([n - 1 for n in size], position)
    corner = voxel_grid([2] * position.shape[1], position).flatten(1).T
    place = torch.minimum(position.clamp(min=0), last)
    below = place.floor()
    share = (place - below)[:, None]
    weight = torch.where(corner.bool(), share, 1 - share).prod(dim=2)
    voxel = torch.minimum(below[:, None] + corner, last).long()
    index = voxel[..., 0]
    for axis, edge in enumerate(list(size)[1:], start=1):
        index = index * edge + voxel[..., axis]
    return index, weight


def drawn(count: int, generator: torch.Generator) -> torch.Tensor:
    """``(count,)`` numbers from 0 to below 1, drawn on the generator's device."""
    return torch.rand(count, generator=generator, device=generator.device)


def some_of(mask: torch.Tensor, count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Random places of a mask, each once at most.

    Args:
        mask: ``(M,)``, boolean.
        count: how many are wanted.
        generator: on the mask's device.

    Returns:
        indices ``(K,)``, K the smaller of count and M, and which of them lie in the mask, boolean ``(K,)``: all, unless
        it has fewer.
    """
    key, index = drawn(len(mask), generator).masked_fill(~mask, -1).topk(min(count, len(mask)))
    return index, key >= 0


class PlaceContrastLoss(nn.Module):
    """
    Cross-entropy of the similarity of a place with all places of the other view against where it truly lies.

    On coarse levels drawn positions of the fixed view are compared with ALL positions of the moving view; the target
    are the eight around the true place, with trilinear weights. At full size they are compared with the true place,
    with places nearby (the hard ones) and with places drawn anywhere.

    The draws are seeded for each known map: the same step draws the same whenever it is computed.

    Positions, on either side, are those that show tissue; air, padding and places that lie outside the other view are
    none. Candidates are those of the same pair.

    Args:
        weights: of the levels by their stride: "4" for a quarter of the size, "2" for half, "1" for full size; of those
            that the descriptors have.
        points: positions drawn on each level.
        anywhere: at full size, candidates drawn from the whole moving view.
        nearby: at full size, candidates around the true place.
        radius: of these, in voxels.
        gap: candidates nearer than this to the true place do not count as wrong, in voxels.
        threshold: see :func:`~scripts.spatial.tissue`.
    """

    def __init__(
        self,
        weights: Mapping[str, float] | None = None,
        points: int = 512,
        anywhere: int = 2048,
        nearby: int = 48,
        radius: float = 5.0,
        gap: float = 1.5,
        threshold: float = 0.04,
    ) -> None:
        super().__init__()
        self.weights = {int(stride): weight for stride, weight in (weights or {"4": 1.0, "2": 1.0, "1": 0.5}).items()}
        check_numbers({f"weights of the contrast, {stride}": weight for stride, weight in self.weights.items()})
        counts = {"points": points, "anywhere": anywhere, "nearby": nearby}
        check_numbers({f"{name} of the contrast": count for name, count in counts.items()}, lowest=1, whole=True)
        if not 0 < gap < radius:
            raise InputError(f"the contrast of places needs 0 < gap < radius, not {gap} and {radius}")
        self.points, self.anywhere, self.nearby = points, anywhere, nearby
        self.radius, self.gap, self.threshold = radius, gap, threshold

    def forward(
        self,
        fixed_places: Mapping[int, torch.Tensor],
        moving_places: Mapping[int, torch.Tensor],
        temperatures: Mapping[int, torch.Tensor],
        fixed: torch.Tensor,
        moving: torch.Tensor,
        known: Sequence[int],
        displacement: torch.Tensor,
    ) -> torch.Tensor:
        """
        Args:
            fixed_places: descriptors of the fixed view by stride, ``(B, C, d, h, w)`` of any length.
            moving_places: those of the moving view.
            temperatures: by stride, scalars.
            fixed: the clean fixed view, ``(B, C, D, H, W)``.
            moving: the clean moving view.
            known: B numbers, the seed of the draws where a pair's map is known, else 0.
            displacement: the known map, ``(B, N, D, H, W)`` in voxels.

        Returns:
            scalar, the weighted mean cross-entropy; 0 where no map is known.
        """
        with torch.autocast(fixed.device.type, enabled=False):
            size = fixed.shape[2:]
            shown = tissue(fixed, self.threshold) * inside_volume(displacement)
            found = tissue(moving, self.threshold)
            true = voxel_grid(size, displacement) + displacement
            every = [*fixed_places.values(), *moving_places.values(), *temperatures.values()]
            total = torch.stack([0 * tensor.float().mean() for tensor in every]).sum()  # a gradient for each, if only 0
            pairs = [pair for pair, is_known in enumerate(known) if is_known]
            for pair in pairs:
                one = slice(pair, pair + 1)
                generator = torch.Generator(fixed.device).manual_seed(int(known[pair]))
                for stride, weight in self.weights.items():
                    if not weight or stride not in fixed_places:
                        continue
                    level = self._fine if stride == 1 else self._coarse
                    descriptors = fixed_places[stride][one].float(), moving_places[stride][one].float()
                    total = total + weight * level(
                        *descriptors, 1 / temperatures[stride], true[one], shown[one], found[one], stride, generator
                    )
            return total / max(len(pairs), 1)

    def _coarse(
        self,
        fixed: torch.Tensor,
        moving: torch.Tensor,
        sharpness: torch.Tensor,
        true: torch.Tensor,
        shown: torch.Tensor,
        found: torch.Tensor,
        stride: int,
        generator: torch.Generator,
    ) -> torch.Tensor:
        """All positions of a level, of one pair."""
        size, level = true.shape[2:], fixed.shape[2:]
        here, there = (on_level(of, level, stride, "zeros").flatten() > 0.5 for of in (shown, found))
        here, asked_for = some_of(here, self.points, generator)
        target = to_level(on_level(true, level, stride), size, level, stride)[0].flatten(1).T[here]
        index, weight = neighbours(target, level)
        weight = weight * there[index]
        share = weight.sum(dim=1, keepdim=True)
        kept = asked_for & (share[:, 0] > 0.25)  # else the true place shows air
        weight = weight / share.clamp(min=0.25)
        places = functional.normalize(moving[0].flatten(1).T, dim=1)
        asked = functional.normalize(fixed[0].flatten(1).T[here], dim=1) * sharpness
        candidates, counted = places_of(there)
        everywhere = torch.addmm(barred(counted), asked, places[candidates].T).logsumexp(dim=1)
        right = (asked[:, None] * places[index]).sum(dim=2)
        entropy = (everywhere - (weight * right).sum(dim=1)).masked_fill(~kept, 0)
        return entropy.sum() / kept.sum().clamp(min=1)

    def _fine(
        self,
        fixed: torch.Tensor,
        moving: torch.Tensor,
        sharpness: torch.Tensor,
        true: torch.Tensor,
        shown: torch.Tensor,
        found: torch.Tensor,
        stride: int,
        generator: torch.Generator,
    ) -> torch.Tensor:
        """Drawn positions at full size, of one pair."""
        dims, masks = true.shape[1], [of.flatten() > 0 for of in (shown, found)]
        numbers = [mask.sum() for mask in masks]
        here, there = (
            place_of(mask, (drawn(count, generator) * number).long())
            for mask, number, count in zip(masks, numbers, (self.points, self.anywhere), strict=True)
        )
        target = true[0].flatten(1)[:, here]
        offset = (drawn(self.nearby * dims, generator).reshape(-1, dims) * 2 - 1) * self.radius
        length = offset.norm(dim=1, keepdim=True)
        offset = torch.where(length < self.gap, offset * (self.gap / length.clamp(min=1e-3)), offset)
        offset = torch.cat([offset.new_zeros(1, dims), offset])
        position = (target[:, :, None] + offset.T[:, None]).reshape(1, dims, -1, *[1] * (dims - 1))
        near = functional.normalize(sample(moving, position).flatten(1).reshape(-1, len(here), len(offset)), dim=0)
        asked = functional.normalize(fixed[0].flatten(1)[:, here], dim=0) * sharpness
        far = functional.normalize(moving[0].flatten(1)[:, there], dim=0)
        others = voxel_grid(true.shape[2:], target).flatten(1)[:, there]
        wrong = (asked.T @ far).masked_fill(torch.cdist(target.T, others.T) < self.gap, BARRED)
        similarity = torch.cat([torch.einsum("ck,ckj->kj", asked, near), wrong], dim=1)
        entropy = functional.cross_entropy(similarity, similarity.new_zeros(len(here), dtype=torch.long))
        return entropy.masked_fill(torch.minimum(*numbers) == 0, 0)
