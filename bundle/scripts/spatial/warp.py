# SPDX-License-Identifier: Apache-2.0
"""
Geometry: affine matrices, displacement fields, their composition and the one warp that samples an image.

The one coordinate convention of this bundle:

- A position is in voxels, in the order of the array's axes ``(x, y, z)`` = ``(D, H, W)`` of a tensor ``(B, C, D, H,
  W)`` (``(x, y)`` = ``(H, W)`` in 2D); the centre of the first voxel is 0, the centre of the last is ``size - 1``
  (``align_corners=True`` everywhere).
- A map goes from the fixed image's grid to the moving image: ``warped(p) = moving(map(p))``.
- A displacement field ``(B, N, D, H, W)`` holds ``map(p) - p``. An affine matrix ``(B, N, N + 1)`` holds
  ``map(p) = M[:, :N] p + M[:, N]``.
- Rotation, scale and shear act about the volume's centre, in millimetres where a spacing is given, so that a rotation
  is rigid on any grid.
- Maps are composed before anything is sampled: ``map(p) = A(p + u(p))`` costs ONE interpolation of the moving image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .grid_sample import grid_sample


def voxel_grid(size: Sequence[int], like: torch.Tensor) -> torch.Tensor:
    """
    Positions of all voxels.

    Args:
        size: spatial size, N integers.
        like: a tensor whose device and dtype are taken.

    Returns:
        ``(N, *size)``, in voxels.
    """
    axes = [torch.arange(n, device=like.device, dtype=like.dtype) for n in size]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def vector(values: Sequence[float], like: torch.Tensor) -> torch.Tensor:
    """
    A few numbers as a tensor, filled in where they are needed: the host waits for a GPU when it copies them there.

    Args:
        values: N numbers.
        like: a tensor whose device and dtype are taken.

    Returns:
        ``(N,)``.
    """
    return torch.stack([torch.full((), value, dtype=like.dtype, device=like.device) for value in values])


def _plane_rotation(angle: torch.Tensor, i: int, j: int, dims: int) -> torch.Tensor:
    """Rotation by ``angle`` (B,), in radians, that turns axis ``i`` towards axis ``j``: ``(B, dims, dims)``."""
    matrix = torch.eye(dims, device=angle.device, dtype=angle.dtype).repeat(len(angle), 1, 1)
    matrix[:, i, i] = matrix[:, j, j] = angle.cos()
    matrix[:, j, i] = angle.sin()
    matrix[:, i, j] = -angle.sin()
    return matrix


def linear_matrix(rotation: torch.Tensor, scale: torch.Tensor, shear: torch.Tensor) -> torch.Tensor:
    """
    ``Shear * Scale * Rz * Ry * Rx`` in 3D, ``Shear * Scale * R`` in 2D (paper, section 3.2).

    Args:
        rotation: ``(B, 3)`` angles about x, y, z in 3D, ``(B, 1)`` in 2D, in radians.
        scale: ``(B, N)`` factors.
        shear: ``(B, N * (N - 1))`` angles in radians, whose tangents are the off-diagonal entries row by row.

    Returns:
        ``(B, N, N)``, differentiable in all three.
    """
    dims = scale.shape[1]
    if dims == 3:
        rx, ry, rz = (_plane_rotation(rotation[:, k], *plane, dims) for k, plane in enumerate([(1, 2), (2, 0), (0, 1)]))
        turn = rz @ ry @ rx
    else:
        turn = _plane_rotation(rotation[:, 0], 0, 1, dims)
    skew = torch.eye(dims, device=shear.device, dtype=shear.dtype).repeat(len(shear), 1, 1)
    skew[:, ~torch.eye(dims, dtype=torch.bool)] = shear.tan()
    return skew @ torch.diag_embed(scale) @ turn


def affine_about_centre(
    linear: torch.Tensor, translation: torch.Tensor, size: Sequence[int], spacing: Sequence[float] | None = None
) -> torch.Tensor:
    """
    The affine map in voxels that is ``linear`` and then ``translation``, about the centre ``c`` of the volume:
    ``map(p) = S^-1 (linear S (p - c) + translation) + c`` with ``S`` the diagonal matrix of the spacing.

    Args:
        linear: ``(B, N, N)``.
        translation: ``(B, N)``, in the unit of the spacing (millimetres; voxels without one).
        size: spatial size, N integers.
        spacing: voxel size in millimetres, N numbers; 1 without one.

    Returns:
        ``(B, N, N + 1)``, voxels of the fixed grid to voxels of the moving image.
    """
    unit = vector([1.0] * len(size) if spacing is None else spacing, linear)
    centre = vector([(n - 1) / 2 for n in size], linear)
    voxel_linear = linear * unit / unit[:, None]
    offset = translation / unit + centre - voxel_linear @ centre
    return torch.cat([voxel_linear, offset[..., None]], dim=2)


def apply_affine(affine: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    """
    ``A(p)`` for many positions.

    Args:
        affine: ``(B, N, N + 1)``.
        position: ``(B, N, ...)`` in voxels; ``(1, N, ...)`` for the same ones of every map.

    Returns:
        ``(B, N, ...)``.
    """
    moved = affine[:, :, :-1] @ position.flatten(2) + affine[:, :, -1:]
    return moved.reshape(len(affine), *position.shape[1:])


def fuse(affine: torch.Tensor, displacement: torch.Tensor) -> torch.Tensor:
    """
    One displacement field for "displacement field in the affine-aligned frame, then affine":
    ``fused(p) = A(p + u(p)) - p``.

    Args:
        affine: ``(B, N, N + 1)``.
        displacement: ``u``, ``(B, N, D, H, W)`` in voxels.

    Returns:
        ``(B, N, D, H, W)`` in voxels.
    """
    with torch.autocast(displacement.device.type, enabled=False):  # voxel positions need float32
        grid = voxel_grid(displacement.shape[2:], displacement)
        return apply_affine(affine, grid + displacement) - grid


def affine_displacement(affine: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """
    The displacement field of an affine map, ``A(p) - p``.

    Args:
        affine: ``(B, N, N + 1)``.
        size: spatial size, N integers.

    Returns:
        ``(B, N, *size)`` in voxels.
    """
    return fuse(affine, affine.new_zeros(len(affine), len(size), *size))


def compose_affine(outer: torch.Tensor, inner: torch.Tensor) -> torch.Tensor:
    """
    One affine map for "``inner``, then ``outer``".

    Args:
        outer: ``(B, N, N + 1)``.
        inner: of the same shape.

    Returns:
        ``(B, N, N + 1)``.
    """
    linear, offset = outer[:, :, :-1] @ inner[:, :, :-1], outer[:, :, :-1] @ inner[:, :, -1:]
    return torch.cat([linear, offset + outer[:, :, -1:]], dim=2)


def inverse_affine(affine: torch.Tensor) -> torch.Tensor:
    """The inverse of affine maps, ``(B, N, N + 1)``."""
    back = torch.linalg.inv(affine[:, :, :-1])
    return torch.cat([back, -back @ affine[:, :, -1:]], dim=2)


def sample(
    image: torch.Tensor, position: torch.Tensor, mode: str = "bilinear", padding_mode: str = "zeros"
) -> torch.Tensor:
    """
    Sample images at any positions.

    Args:
        image: ``(B, C, D, H, W)``.
        position: ``(B, N, *size)`` in voxels of the image; ``size`` is that of the result.
        mode: ``"bilinear"`` (trilinear in 3D) or ``"nearest"`` for label maps.
        padding_mode: what lies outside: ``"zeros"`` or ``"border"``. Along an axis of one voxel nothing is outside.

    Returns:
        ``(B, C, *size)``, of the positions' type.
    """
    last = vector([max(n - 1, 1) for n in image.shape[2:]], position)
    coordinates = (position.movedim(1, -1) * (2 / last) - 1).flip(-1)  # grid_sample: last axis first, within -1..1
    return grid_sample(image.to(position), coordinates, mode, padding_mode)


def warp(
    image: torch.Tensor, displacement: torch.Tensor, mode: str = "bilinear", padding_mode: str = "zeros"
) -> torch.Tensor:
    """
    Sample an image at displaced positions (spatial transformer): ``warped(p) = image(p + displacement(p))``.

    ``monai.networks.blocks.Warp`` computes the same; it keeps one grid per module, of the first device and dtype seen.

    Args:
        image: moving image or feature map, ``(B, C, D, H, W)``.
        displacement: ``(B, N, D, H, W)`` in voxels. Positions are computed in float32 whatever autocast says: bfloat16
            has 8 bits, not enough to address 256 voxels.
        mode: see :func:`sample`.
        padding_mode: see :func:`sample`.

    Returns:
        ``(B, C, D, H, W)``, in float32 (float64 for float64 displacements).
    """
    with torch.autocast(image.device.type, enabled=False):
        field = displacement.to(torch.promote_types(displacement.dtype, torch.float32))
        return sample(image, voxel_grid(field.shape[2:], field) + field, mode, padding_mode)


def compose(outer: torch.Tensor, inner: torch.Tensor) -> torch.Tensor:
    """
    One displacement field for "``inner``, then ``outer``": ``u(p) = inner(p) + outer(p + inner(p))``.

    Args:
        outer: ``(B, N, D, H, W)`` in voxels.
        inner: of the same shape.

    Returns:
        ``(B, N, D, H, W)`` in voxels.
    """
    return inner + warp(outer, inner, padding_mode="border")


def exponential(velocity: torch.Tensor, steps: int = 7) -> torch.Tensor:
    """
    The displacement field of a stationary velocity field, by scaling and squaring: ``u = v / 2^steps``, then ``steps``
    times ``u(p) <- u(p) + u(p + u(p))``. Diffeomorphic as long as the first small step is.

    ``monai.networks.blocks.DVF2DDF`` computes the same; see :func:`warp` for what keeps it from being used.

    Args:
        velocity: ``(B, N, D, H, W)`` in voxels.
        steps: squarings.

    Returns:
        ``(B, N, D, H, W)`` in voxels.
    """
    displacement = velocity / 2**steps
    for _ in range(steps):
        displacement = compose(displacement, displacement)
    return displacement
