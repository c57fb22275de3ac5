# SPDX-License-Identifier: Apache-2.0
"""The global part of Z-matching: places that are each other's best match, and a robust affine fit to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ..spatial.level_grid import level_positions, on_level
from ..spatial.places import barred, places_of
from ..spatial.robust_affine import robust_affine
from ..spatial.tissue import tissue
from .known_map import KnownMap
from .levels import Levels
from .place_descriptors import LevelDescriptors, unit_length
from .recorded import recorded

ROWS = 128
"""Places that are compared at once: what all of them make is tens of megabytes, twice as slow to write and to read."""
GROUP = 64
"""Values that are compared by their maximum first."""


def most_similar(
    asked: torch.Tensor, places: torch.Tensor, count: int, counted: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    The places with the largest dot products.

    Args:
        asked: descriptors ``(K, C)``.
        places: descriptors ``(M, C)``.
        count: of places that are wanted for each.
        counted: which places are compared, boolean ``(M,)``; the others come last. None for all.

    Returns:
        dot products, falling, and indices of the places, ``(K, count)`` each.
    """
    more = places.new_zeros(len(places)) if counted is None else barred(counted)
    missing = -len(places) % GROUP
    more, places = functional.pad(more, (0, missing), value=-torch.inf), functional.pad(places, (0, 0, 0, missing))
    found = [_largest(torch.addmm(more, rows, places.T), count) for rows in asked.split(ROWS)]
    values, indices = (torch.cat(parts) for parts in zip(*found, strict=True))
    return values, indices


def _largest(values: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """
    ``torch.topk`` along the rows of ``(K, M)``, M a multiple of :data:`GROUP`, in half the time: the largest values lie
    in the groups with the largest maxima, of which there are as many as values wanted.
    """
    if count == 1:
        return values.max(dim=1, keepdim=True)
    groups = values.unflatten(1, (-1, GROUP))
    if groups.shape[1] <= 2 * count:
        return values.topk(count, dim=1)
    first = groups.amax(dim=2).topk(count, dim=1).indices
    kept = groups.gather(1, first[..., None].expand(-1, -1, GROUP)).flatten(1)
    largest, index = kept.topk(count, dim=1)
    return largest, first.gather(1, index // GROUP) * GROUP + index % GROUP


@recorded
class GlobalMatchingHead(nn.Module):
    """
    Affine matching without regression: positions of the fixed image that show tissue look for the most similar place in
    the whole moving image; those that are found back from there count; a robust least-squares fit gives the affine map.

    Nothing is learned but the descriptors, by :class:`~scripts.losses.PlaceContrastLoss`.

    Args:
        features: channels of the backbone's levels, from full size down.
        strides: of the levels whose places are learned; 1 for f^l.
        widths: channels of their descriptors.
        stride: of the level that is matched; the coarsest one where it is not among the strides.
        points: positions of the fixed image.
        points_back: positions of the moving image by which the map back is found, in evaluation mode; 0 for none.
        candidates: most similar places whose mean, weighted by the softmax, is where a position is found.
        near: how far these may lie from the best one, in voxels.
        reach: within which a position must be found back, in voxels.
        scale: see :func:`~scripts.spatial.robust_affine`. What others, and others of ``near``, give stands
            in ``docs/choices.md`` of the repository.
        threshold: see :func:`~scripts.spatial.tissue`.
        spatial_dims: 2 or 3.
        temperature: of the softmax, at the start.
    """

    def __init__(
        self,
        features: Sequence[int],
        strides: Sequence[int] = (4, 2, 1),
        widths: Sequence[int] = (32, 32, 32),
        stride: int = 2,
        points: int = 1500,
        points_back: int = 500,
        candidates: int = 32,
        near: float = 3.0,
        reach: float = 6.0,
        scale: float = 2.0,
        threshold: float = 0.04,
        spatial_dims: int = 3,
        temperature: float = 0.1,
    ) -> None:
        super().__init__()
        self.places = LevelDescriptors(features, strides, widths, spatial_dims, temperature)
        self.stride = stride if stride in self.places.strides else max(self.places.strides)
        self.points, self.points_back, self.candidates = points, points_back, candidates
        self.near, self.reach, self.scale, self.threshold = near, reach, scale, threshold

    def forward(self, fixed: Levels, moving: Levels, known: KnownMap | None = None) -> dict[str, Any]:
        """
        Args:
            fixed: the fixed image and its features, see :class:`~scripts.networks.Levels`.
            moving: the moving image and its features.
            known: the known maps of a training step, which take the place of matched ones.

        Returns:
            ``affine`` ``(B, N, N + 1)``, fixed voxels to moving voxels, and what tells whether to trust it, ``(B,)``
            each within 0..1: ``agreement``, how well places are found back; ``inliers``, the share of matched places
            that the map explains; ``conditioning``, 0 where they lie in a plane. In evaluation mode also
            ``backward_affine`` ``(B, N, N + 1)``, the map found from the moving image's positions, moving voxels to
            fixed voxels. With known maps also ``places``, the descriptors of the fixed and of the moving image and the
            temperatures, by stride.
        """
        wanted = [self.stride] if known is None else self.places.strides
        described = [self.places(levels, wanted) for levels in (fixed, moving)]
        found = self._affine(fixed, moving, described, known)
        if known is not None:
            temperatures = {stride: self.places.temperature(stride) for stride in wanted}
            found["places"] = {"fixed": described[0], "moving": described[1], "temperatures": temperatures}
        return found

    @torch.no_grad()
    def _affine(
        self, fixed: Levels, moving: Levels, described: Sequence[dict[int, torch.Tensor]], known: KnownMap | None
    ) -> dict[str, Any]:
        size = fixed.image.shape[2:]
        ahead, behind = (unit_length(descriptors[self.stride]) for descriptors in described)
        level = ahead.shape[2:]
        with torch.autocast(ahead.device.type, enabled=False):
            position = level_positions(size, level, self.stride, ahead)[0].flatten(1).T
            masks = [
                on_level(tissue(levels.image, self.threshold), level, self.stride, "zeros").flatten(1) > 0.5
                for levels in (fixed, moving)
            ]
            both = [(a.flatten(1).T, b.flatten(1).T, *mask) for a, b, *mask in zip(ahead, behind, *masks, strict=True)]
            needless = [False] * len(both) if known is None else known.pairs
            matched = [
                _nothing(position) if skip else self._match(one, other, here, there, position, self.points)
                for skip, (one, other, here, there) in zip(needless, both, strict=True)
            ]
            back = None
            if self.points_back and known is None and not self.training:
                turned = [(other, one, there, here) for one, other, here, there in both]
                back = torch.stack([self._match(*each, position, self.points_back)[0] for each in turned])
        names = ("affine", "agreement", "inliers", "conditioning")
        found = dict(zip(names, (torch.stack(values) for values in zip(*matched, strict=True)), strict=True))
        if back is not None:
            found["backward_affine"] = back
        if known is not None:
            found["affine"] = known.where(known.affine.to(found["affine"]), found["affine"])
        return found

    def _match(
        self,
        fixed: torch.Tensor,
        moving: torch.Tensor,
        here: torch.Tensor,
        there: torch.Tensor,
        position: torch.Tensor,
        points: int,
    ) -> tuple[torch.Tensor, ...]:
        """One pair: unit descriptors ``(M, C)``, masks ``(M,)``, positions ``(M, N)``; so many are asked for."""
        (rows, shown), (columns, found) = places_of(here), places_of(there)
        least = 4 * (position.shape[1] + 1)
        if min(len(rows), len(columns)) < least:
            return _nothing(position)
        last, count = shown.sum() - 1, min(points, len(rows))
        even = torch.arange(count, device=rows.device) * last.clamp(min=count - 1) // max(count - 1, 1)
        asked, counted, places = rows[even], shown[even], moving[columns]
        similarity, index = most_similar(fixed[asked], places, min(self.candidates, len(columns)), found)
        candidates = position[columns][index]
        around = (candidates - candidates[:, :1]).norm(dim=2) < self.near
        share = (similarity / self.places.temperature(self.stride)).softmax(dim=1) * around
        target = (candidates * (share / share.sum(dim=1, keepdim=True))[..., None]).sum(dim=1)
        back = position[rows[most_similar(places[index[:, 0]], fixed[rows], 1, shown)[1][:, 0]]]
        agreement = (-(((back - position[asked]).norm(dim=1) / self.reach) ** 2)).exp()
        fit = robust_affine(position[asked], target, (agreement + 1e-4) * counted, scale=self.scale)
        mean = (agreement * counted).sum() / counted.sum().clamp(min=1)
        enough = torch.minimum(last + 1, found.sum()) >= least
        values = (fit.affine, mean, fit.inliers, fit.conditioning)
        return tuple(torch.where(enough, one, none) for one, none in zip(values, _nothing(position), strict=True))


def _nothing(position: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """What is said of a pair that shows too little to match: the identity, and no trust in it."""
    none, dims = position.new_zeros(()), position.shape[1]
    return torch.eye(dims, dims + 1, device=position.device), none, none, none
