# SPDX-License-Identifier: Apache-2.0
"""The affine part of a whole match: fitted to what local matching and refinement found, the map itself as it is."""

from __future__ import annotations

from typing import Any

import torch

from ..spatial.displacement import in_affine_frame, inside_volume
from ..spatial.linear_maps import leads_back
from ..spatial.robust_affine import robust_affine
from ..spatial.tissue import tissue
from ..spatial.warp import fuse, voxel_grid
from .finer_grid import FinerGrid


def affine_of(displacement: torch.Tensor, shown: torch.Tensor, scale: float, points: float) -> torch.Tensor | None:
    """
    The affine map nearest to a whole one, by the weights of :func:`~scripts.spatial.robust_affine`.

    Args:
        displacement: ``(1, N, D, H, W)`` in voxels.
        shown: where it counts, ``(1, 1, D, H, W)``.
        scale: residual, in voxels, at which a voxel counts for a quarter.
        points: voxels at most, evenly spread.

    Returns:
        ``(1, N, N + 1)``; None where voxels are too few for one, or it would have no inverse or mirror.
    """
    grid = voxel_grid(displacement.shape[2:], displacement).flatten(1).T
    moved, places = displacement[0].flatten(1).T + grid, shown.flatten().nonzero()[:, 0]
    if len(places) < 4 * (grid.shape[1] + 1):
        return None
    some = places[torch.linspace(0, len(places) - 1, min(int(points), len(places)), device=places.device).long()]
    affine = robust_affine(grid[some], moved[some], torch.ones_like(grid[some, 0]), scale=scale).affine[None]
    linear = affine[:, :, :-1]
    fits = bool(affine.isfinite().all()) and leads_back(linear) and bool((torch.linalg.det(linear) > 0).all())
    return affine if fits else None


def split_anew(
    found: dict[str, Any], fixed: torch.Tensor, grid: FinerGrid | None, scale: float, points: float
) -> dict[str, Any]:
    """
    A match whose ``affine`` is the one nearest to its whole map over the fixed image's tissue that the moving image
    shows, and whose local displacement is what is left. Places alone find an affine map from single positions; the
    whole map knows more, and beyond the images it is what goes on.

    Args:
        found: of one pair, see :class:`~scripts.matching.MatchingInferer`.
        fixed: ``(1, C, D, H, W)`` within 0..1.
        grid: of ``finer_affine`` and ``finer_local_displacement``; None without them.
        scale: see :func:`affine_of`.
        points: see :func:`affine_of`.

    Returns:
        the same maps, split into other parts, and ``matched_affine``, the map that places gave.
    """
    whole = found["displacement"].detach().float()
    found = {"matched_affine": found["affine"], **found}
    affine = affine_of(whole, (tissue(fixed) > 0) & inside_volume(whole), scale, points)
    if affine is None:
        return found
    found |= {"affine": affine, "local_displacement": in_affine_frame(affine, whole)}
    if grid is not None:
        finer = grid.affine_map(affine)
        left = in_affine_frame(finer, fuse(found["finer_affine"], found["finer_local_displacement"]))
        found |= {"finer_affine": finer, "finer_local_displacement": left}
    return found
