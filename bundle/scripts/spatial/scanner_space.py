# SPDX-License-Identifier: Apache-2.0
"""
Matches in scanner space: from the network's prepared grids to millimetres and to any image's own grid.

World coordinates are millimetres along axes towards right, anterior and superior (RAS), as in NIfTI; the 4x4 affine of
an image takes its voxels there. A match of a fixed image prepared on grid ``F`` and a moving image prepared on grid
``M`` is

    phi(x) = M A(p + u(p)),  p = F^-1 x

with ``A`` the affine head's matrix and ``u`` the local displacement (held at the border's value beyond the grid,
where ``A`` goes on). Images are sampled at ``phi`` in their ORIGINAL grids: one interpolation of what was acquired,
whatever the preparation did to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .warp import sample, voxel_grid


def transform_points(affine: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """
    Args:
        affine: ``(N + 1, N + 1)`` or ``(N, N + 1)``.
        points: ``(N, *size)``.

    Returns:
        the transformed points, ``(N, *size)``.
    """
    n = len(points)
    matrix = affine.to(points)
    return (matrix[:n, :n] @ points.flatten(1) + matrix[:n, n:]).reshape(points.shape)


def homogeneous(affine: torch.Tensor) -> torch.Tensor:
    """``(N, N + 1)`` completed by the row ``0 ... 0 1``: ``(N + 1, N + 1)``."""
    last = torch.zeros_like(affine[:1])
    last[0, -1] = 1
    return torch.cat([affine, last])


@dataclass
class WorldMatch:
    """
    The map ``phi`` from the fixed scan's world to the moving scan's world.

    Args:
        affine: ``A``, ``(N, N + 1)``, prepared fixed voxels to prepared moving voxels.
        local_displacement: ``u``, ``(N, D, H, W)`` in prepared fixed voxels.
        fixed_affine: ``F``, ``(N + 1, N + 1)``, prepared fixed voxels to millimetres.
        moving_affine: ``M``, ``(N + 1, N + 1)``, prepared moving voxels to millimetres.
    """

    affine: torch.Tensor
    local_displacement: torch.Tensor
    fixed_affine: torch.Tensor
    moving_affine: torch.Tensor

    def matrix(self) -> torch.Tensor:
        """The affine part in millimetres, ``M A F^-1``: ``(N + 1, N + 1)`` in float64."""
        fixed, moving = self.fixed_affine.double().cpu(), self.moving_affine.double().cpu()
        return moving @ homogeneous(self.affine.double().cpu()) @ torch.linalg.inv(fixed)

    def __call__(self, points: torch.Tensor) -> torch.Tensor:
        """
        Args:
            points: ``x``, ``(N, ...)`` in millimetres of the fixed scan's world.

        Returns:
            ``phi(x)``, ``(N, ...)`` in millimetres of the moving scan's world.
        """
        prepared = transform_points(torch.linalg.inv(self.fixed_affine.double()), points)
        listed = prepared.reshape(1, len(points), -1, *[1] * (len(points) - 1))
        local = sample(self.local_displacement[None], listed, padding_mode="border").reshape(prepared.shape)
        aligned = transform_points(self.affine, prepared + local)
        return transform_points(self.moving_affine, aligned)

    def displacement(self, grid_affine: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
        """
        ``phi(x) - x`` at the voxels of a grid, computed in slabs to bound the memory.

        Args:
            grid_affine: ``(N + 1, N + 1)``, voxels of the grid to millimetres.
            size: its spatial size.

        Returns:
            ``(N, *size)`` in millimetres, RAS.
        """
        start = torch.zeros(len(size), 1, dtype=torch.float32, device=self.local_displacement.device)
        slabs = []
        for first in range(size[0]):
            start[0] = first
            voxels = voxel_grid([1, *size[1:]], start) + start.reshape(-1, *[1] * len(size))
            points = transform_points(grid_affine, voxels)
            slabs.append(self(points) - points)
        return torch.cat(slabs, dim=1)


def sampling_positions(
    image_affine: torch.Tensor, displacement: torch.Tensor, grid_affine: torch.Tensor
) -> torch.Tensor:
    """
    Where an image is sampled to bring it into the frame of a fixed grid.

    Args:
        image_affine: ``(N + 1, N + 1)``, voxels of the moving image to millimetres.
        displacement: ``(N, *size)`` in millimetres at the grid's voxels (see :meth:`WorldMatch.displacement`).
        grid_affine: ``(N + 1, N + 1)``, voxels of the fixed grid to millimetres.

    Returns:
        ``(N, *size)``, in voxels of the moving image.
    """
    points = transform_points(grid_affine, voxel_grid(displacement.shape[1:], displacement)) + displacement
    return transform_points(torch.linalg.inv(image_affine.double()), points)


def resample(
    image: torch.Tensor,
    image_affine: torch.Tensor,
    displacement: torch.Tensor,
    grid_affine: torch.Tensor,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
) -> torch.Tensor:
    """
    A moving image in the frame of a fixed grid.

    Args:
        image: ``(C, D, H, W)`` in its own grid.
        image_affine: ``(N + 1, N + 1)``, its voxels to millimetres.
        displacement: ``(N, *size)`` in millimetres at the grid's voxels (see :meth:`WorldMatch.displacement`).
        grid_affine: ``(N + 1, N + 1)``, voxels of the fixed grid to millimetres.
        mode: ``"bilinear"`` or ``"nearest"``.
        padding_mode: what lies outside: ``"zeros"`` or ``"border"``.

    Returns:
        ``(C, *size)``.
    """
    position = sampling_positions(image_affine, displacement, grid_affine)
    return sample(image[None], position[None], mode, padding_mode)[0]


def scanner_jacobian_determinant(displacement: torch.Tensor, grid_affine: torch.Tensor) -> torch.Tensor:
    """
    Determinant of the Jacobian of ``x + displacement(x)`` in world coordinates, by central differences.

    Args:
        displacement: ``(N, *size)`` in millimetres.
        grid_affine: ``(N + 1, N + 1)``, voxels to millimetres.

    Returns:
        ``size``; 1 keeps volumes, 0 or below folds.
    """
    n = len(displacement)
    columns = [
        torch.gradient(displacement, dim=axis + 1)[0]
        if displacement.shape[axis + 1] > 1
        else torch.zeros_like(displacement)
        for axis in range(n)
    ]
    by_voxel = torch.stack(columns, dim=-1).movedim(0, -2)  # (*size, N of the field, N of the voxel axes)
    to_voxels = torch.linalg.inv(grid_affine[:n, :n].double()).to(displacement)
    return torch.linalg.det(by_voxel @ to_voxels + torch.eye(n).to(displacement))
