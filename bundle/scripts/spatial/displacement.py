# SPDX-License-Identifier: Apache-2.0
"""What a displacement field does to a volume: where it leads out of it, where it stretches and folds it."""

from __future__ import annotations

import torch

from ..errors import InputError
from .warp import vector, voxel_grid


def inside_volume(displacement: torch.Tensor, tolerance: float = 1e-3) -> torch.Tensor:
    """
    Where the displaced positions lie within the moving volume: the field of view after warping.

    Args:
        displacement: ``(B, N, D, H, W)`` in voxels.
        tolerance: voxels beyond the outermost centres that still count (rounding).

    Returns:
        boolean ``(B, 1, D, H, W)``.
    """
    size = displacement.shape[2:]
    position = voxel_grid(size, displacement) + displacement
    last = vector([n - 1 for n in size], position).reshape(-1, *[1] * len(size))
    return ((position >= -tolerance) & (position <= last + tolerance)).all(dim=1, keepdim=True)


def jacobian_determinant(displacement: torch.Tensor) -> torch.Tensor:
    """
    Determinant of the Jacobian of ``p + displacement(p)``, by central differences (one-sided at the border).

    Above 1 the map expands, below 1 it shrinks, at 0 or below it folds. It does not depend on the voxel size.

    Args:
        displacement: ``(B, N, D, H, W)`` in voxels, at least 2 voxels along each axis.

    Returns:
        ``(B, D, H, W)``.
    """
    dims = displacement.shape[1]
    if min(displacement.shape[2:]) < 2:
        raise InputError(f"a Jacobian needs 2 voxels along each axis, not {tuple(displacement.shape[2:])}")
    columns = torch.gradient(displacement.float(), dim=list(range(2, 2 + dims)))
    jacobian = torch.stack(columns, dim=-1).movedim(1, -2)  # (B, D, H, W, N of the field, N of the derivative)
    return torch.linalg.det(jacobian + torch.eye(dims, device=displacement.device))


def in_affine_frame(affine: torch.Tensor, displacement: torch.Tensor) -> torch.Tensor:
    """
    The displacement ``u`` for which ``A(p + u(p))`` is a whole map: the inverse of :func:`~scripts.spatial.fuse`.

    Args:
        affine: ``(B, N, N + 1)``.
        displacement: of the whole map, ``(B, N, D, H, W)`` in voxels.

    Returns:
        ``(B, N, D, H, W)`` in voxels.
    """
    grid = voxel_grid(displacement.shape[2:], displacement)
    reached = (grid + displacement).flatten(2) - affine[:, :, -1:]
    return torch.linalg.solve(affine[:, :, :-1], reached).reshape(displacement.shape) - grid
