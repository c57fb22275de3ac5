# SPDX-License-Identifier: Apache-2.0

"""How good a displacement field is, in the scans' own grids, whichever method found it on whichever grid."""

from __future__ import annotations

import torch
from scripts.evaluation import label_dice, structure_quality
from scripts.spatial import (
    WorldMatch,
    resample,
    resample_labels,
    sample,
    sampling_positions,
    scanner_jacobian_determinant,
    voxel_grid,
)

from .scans import Scan

MEASURES = ("dice", "dice_nearest", "hd95", "folded", "log_jacobian_std", "inverse_consistency")


def score(field: torch.Tensor, fixed: Scan, moving: Scan, structures: int) -> dict[str, float]:
    """
    The measures of a match.

    Args:
        field: ``phi(x) - x`` at the fixed scan's own voxels, ``(3, D, H, W)`` in millimetres RAS.
        fixed: the fixed scan.
        moving: the moving scan, whose labels are carried over as a match writes them.
        structures: their number.

    Returns:
        ``dice`` and ``hd95`` (mm), means over the structures found in either (``hd95``: in both); ``dice_nearest``,
        of labels carried by nearest neighbour; ``folded``, percent of the voxels; ``log_jacobian_std``.
    """
    where = (moving.label, moving.affine, field.double(), fixed.affine)
    carried, nearest = resample_labels(*where), resample(*where, mode="nearest")
    spacing = fixed.affine[:3, :3].norm(dim=0).tolist()
    dice, distance = structure_quality(carried[None].float(), fixed.label[None], structures, spacing)
    determinant = scanner_jacobian_determinant(field.double(), fixed.affine)
    return {
        "dice": float(dice.nanmean()),
        "dice_nearest": float(label_dice(nearest[None], fixed.label[None])),
        "hd95": float(distance.nanmean()),
        "folded": 100 * float((determinant <= 0).double().mean()),
        "log_jacobian_std": float(determinant.clamp(min=1e-3).log().std()),
    }


def inverse_consistency(there: torch.Tensor, back: torch.Tensor, fixed: Scan, moving: Scan) -> float:
    """
    How far a point comes to lie from itself, there and back: mean over the labelled voxels of the fixed scan that are
    mapped into the moving one, in millimetres.

    Args:
        there: field at the fixed scan's voxels, ``(3, D, H, W)`` in millimetres.
        back: field at the moving scan's voxels.
        fixed: the fixed scan.
        moving: the moving scan.
    """
    position = sampling_positions(moving.affine, there.double(), fixed.affine)  # in voxels of the moving scan
    size = moving.image.shape[1:]
    last = torch.tensor(list(size)).reshape(-1, 1, 1, 1) - 1
    counts = (fixed.label[0] > 0) & ((position >= 0) & (position <= last)).all(dim=0)
    round_trip = there + sample(back[None].double(), position[None], padding_mode="border")[0]
    return float(round_trip.norm(dim=0)[counts].mean())


def on_own_grid(field: torch.Tensor, grid: torch.Tensor, matrix: torch.Tensor, fixed: Scan) -> torch.Tensor:
    """
    A field that was found on another grid, at the fixed scan's own voxels: beyond that grid the affine part goes on.

    Args:
        field: ``(3, *size)`` in millimetres.
        grid: ``(4, 4)``, voxels of its grid to millimetres.
        matrix: the affine part of the map, ``(4, 4)`` in millimetres.
        fixed: the fixed scan.

    Returns:
        ``(3, D, H, W)`` in millimetres.
    """
    grid, matrix = grid.double(), matrix.double()
    own = torch.linalg.inv(grid) @ matrix @ grid  # the affine part in voxels of the grid
    positions = sampling_positions(grid, field.double(), grid)  # where the whole map leads, in the same voxels
    flat = torch.linalg.solve(own[:3, :3], positions.flatten(1) - own[:3, 3:]).reshape(positions.shape)
    local = flat - voxel_grid(field.shape[1:], flat)
    return WorldMatch(own[:3], local, grid, grid).displacement(fixed.affine, fixed.image.shape[1:])
