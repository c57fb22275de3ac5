# SPDX-License-Identifier: Apache-2.0
"""
Where the voxels of a backbone's levels lie in the image.

A level of stride ``s`` has one voxel for ``s`` image voxels along each axis, at their centre, after the backbone's
symmetric padding to a multiple of its largest stride.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .warp import apply_affine, inverse_affine, sample, vector, voxel_grid


def _padding(size: Sequence[int], level: Sequence[int], stride: int) -> list[int]:
    """Zeros that the backbone put before each axis of the image, in voxels."""
    return [max(0, count * stride - n) // 2 for n, count in zip(size, level, strict=True)]


def level_positions(size: Sequence[int], level: Sequence[int], stride: int, like: torch.Tensor) -> torch.Tensor:
    """
    Centres of a level's voxels in the image.

    Args:
        size: of the image, N integers.
        level: size of the level, N integers.
        stride: image voxels a level voxel.
        like: a tensor whose device and dtype are taken.

    Returns:
        ``(1, N, *level)`` in voxels of the image.
    """
    before = vector(_padding(size, level, stride), like).reshape(-1, *[1] * len(level))
    return (stride * voxel_grid(level, like) + (stride - 1) / 2 - before)[None]


def to_level(position: torch.Tensor, size: Sequence[int], level: Sequence[int], stride: int) -> torch.Tensor:
    """
    The same positions in voxels of a level.

    Args:
        position: ``(B, N, ...)`` in voxels of the image.
        size: see :func:`level_positions`.
        level: see :func:`level_positions`.
        stride: see :func:`level_positions`.

    Returns:
        of the same shape.
    """
    before = vector(_padding(size, level, stride), position).reshape(-1, *[1] * (position.dim() - 2))
    return (position + before - (stride - 1) / 2) / stride


def on_level(image: torch.Tensor, level: Sequence[int], stride: int, padding_mode: str = "border") -> torch.Tensor:
    """
    An image or a field at the centres of a level's voxels.

    Args:
        image: ``(B, C, D, H, W)``.
        level: see :func:`level_positions`.
        stride: see :func:`level_positions`.
        padding_mode: see :func:`~scripts.spatial.sample`.

    Returns:
        ``(B, C, *level)``.
    """
    position = level_positions(image.shape[2:], level, stride, image)
    return sample(image, position.expand(len(image), *position.shape[1:]), padding_mode=padding_mode)


def from_level(field: torch.Tensor, size: Sequence[int], stride: int) -> torch.Tensor:
    """
    A field of a level at the voxels of the image, or of a finer level seen as one.

    Args:
        field: ``(B, C, *level)``.
        size: of the image, N integers.
        stride: see :func:`level_positions`.

    Returns:
        ``(B, C, *size)``.
    """
    level = field.shape[2:]
    position = to_level(voxel_grid(size, field)[None], size, level, stride)
    return sample(field, position.expand(len(field), *position.shape[1:]), padding_mode="border")


def inverse_on_level(
    back: torch.Tensor, affine: torch.Tensor, size: Sequence[int], stride: int, steps: int = 5
) -> torch.Tensor:
    """
    The inverse of a map from the moving image back to the fixed one: ``w`` for which ``A(p + w(p))`` is the inverse of
    ``q -> A^-1(q + v(q))``, from the fixed point ``q = A p - v(q)``. Each step goes half of the way: whole steps do not
    settle where ``v`` stretches, and leave folds there.

    Args:
        back: ``v``, ``(B, N, *level)`` in voxels of the image.
        affine: ``A``, fixed voxels to moving voxels of the image, ``(B, N, N + 1)``.
        size: of both images, N integers.
        stride: see :func:`level_positions`.
        steps: how many; what is left shrinks to half with each where ``v`` is smooth.

    Returns:
        ``(B, N, *level)`` in voxels of the image.
    """
    level = back.shape[2:]
    position = level_positions(size, level, stride, back)
    reached = target = apply_affine(affine, position)
    for _ in range(steps):
        before = sample(back, to_level(reached, size, level, stride), padding_mode="border")
        reached = (reached + target - before) / 2
    return apply_affine(inverse_affine(affine), reached) - position
