# SPDX-License-Identifier: Apache-2.0
"""An affine map fitted to pairs of matched positions of which some are wrong."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch


class AffineFit(NamedTuple):
    """
    An affine map and how far it can be trusted.

    Args:
        affine: ``(N, N + 1)``, fixed voxels to moving voxels.
        inliers: share of the pairs' weight that lies within ``tolerance`` voxels of the map.
        conditioning: smallest over largest standard deviation of the inliers' positions along their principal axes; 0
            where they lie in a plane, so that the map is not determined.
    """

    affine: torch.Tensor
    inliers: torch.Tensor
    conditioning: torch.Tensor


def robust_affine(
    source: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor,
    rounds: int = 20,
    scale: float = 2.0,
    prior: float = 1e-3,
    tolerance: float = 8.0,
) -> AffineFit:
    """
    Iteratively reweighted least squares for ``target = A source + t``.

    The weights are those of Geman and McClure, ``1 / (1 + (r / s)^2)^2`` of the residual ``r``; ``s`` begins at 1.5
    times the median residual, where all pairs count, and shrinks to ``scale`` (graduated non-convexity).

    Args:
        source: positions ``(K, N)`` in voxels.
        target: where they are found, ``(K, N)`` in voxels.
        weight: of each pair, ``(K,)``; pairs of weight 0 change nothing.
        rounds: of reweighting.
        scale: residual, in voxels, at which a pair counts for a quarter in the end.
        prior: weight of a linear part that is the identity, relative to that of all pairs.
        tolerance: residual, in voxels, up to which a pair is an inlier.

    Returns:
        the map and its trustworthiness, in float32; all NaN where a target is not finite, as after a training that
        diverged: solvers raise errors of their own then, and the loss is what tells.
    """
    source, target, weight = source.float(), target.float(), weight.float()
    dims = source.shape[1]
    finite, counted = target.isfinite().all() & weight.isfinite().all(), weight > 0
    number = counted.sum()
    centre = (source * counted[:, None]).sum(dim=0) / number.clamp(min=1)
    squares = ((source - centre) ** 2 * counted[:, None]).sum(dim=0)
    spread = (squares / number.clamp(min=1)).sqrt().mean().clamp(min=1.0)
    ahead = torch.cat([(source - centre) / spread, torch.ones_like(source[:, :1])], dim=1)
    moved = (target - centre) / spread
    identity = torch.eye(dims + 1, dims, device=source.device)
    damping = torch.eye(dims + 1, device=source.device)
    damping[dims, dims] = 0
    current, shrinking = weight, 0.1 ** (1.5 / rounds)  # a tenth after two thirds of the rounds
    bound = None
    for _ in range(rounds):
        strength = prior * current.sum().clamp(min=1e-6) * damping
        normal = ahead.T @ (current[:, None] * ahead) + strength
        normal = normal + 1e-6 * current.sum().clamp(min=1e-6) * torch.eye(dims + 1, device=source.device)
        wanted = ahead.T @ (current[:, None] * moved) + strength @ identity
        solution = torch.linalg.solve_ex(normal, wanted).result  # without a check, for which the host waits for a GPU
        residual = (ahead @ solution - moved).norm(dim=1) * spread
        wide = 1.5 * _median(residual, counted) if bound is None else shrinking * bound
        bound = wide.clamp(min=scale)
        current = weight / (1 + (residual / bound) ** 2) ** 2
    inliers = (weight * (residual < tolerance)).sum() / weight.sum().clamp(min=1e-6)
    share = current / current.sum().clamp(min=1e-6)
    offset = ahead[:, :dims] - (share[:, None] * ahead[:, :dims]).sum(dim=0)
    smallest, largest = (value.clamp(min=0) for value in extreme_eigenvalues(offset.T @ (share[:, None] * offset)))
    linear = solution[:dims].T
    translation = (solution[dims] * spread + centre) - linear @ centre
    affine = torch.cat([linear, translation[:, None]], dim=1)
    fit = AffineFit(affine, inliers, (smallest / largest.clamp(min=1e-12)).sqrt())
    return AffineFit(*(value.masked_fill(~finite, torch.nan) for value in fit))


def _median(values: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """The (lower) median of those that count: a GPU's host waits for that of ``torch.nanmedian``."""
    middle = (counted.sum() - 1).clamp(min=0) // 2
    return values.masked_fill(~counted, torch.inf).sort().values.gather(0, middle[None])[0]


def extreme_eigenvalues(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """
    In closed form: the host of a GPU waits to hear whether ``torch.linalg.eigvalsh`` has converged.

    Args:
        matrix: symmetric, ``(2, 2)`` or ``(3, 3)``.

    Returns:
        its smallest and its largest eigenvalue, scalars.
    """
    dims = len(matrix)
    mean = matrix.trace() / dims
    rest = matrix - mean * torch.eye(dims, device=matrix.device)
    width = (rest.square().sum() / (dims * (dims - 1))).sqrt()
    if dims == 2:
        return mean - width, mean + width
    rest = rest / width.clamp(min=1e-20)
    angle = ((torch.linalg.cross(rest[0], rest[1]) @ rest[2]) / 2).clamp(-1, 1).acos() / 3
    return mean + 2 * width * (angle + 2 * math.pi / 3).cos(), mean + 2 * width * angle.cos()
