# SPDX-License-Identifier: Apache-2.0
"""Label maps at positions between their voxels: the label of most weight there, not that of the nearest voxel."""

from __future__ import annotations

from itertools import product

import torch

from .scanner_space import sampling_positions
from .warp import voxel_grid


def sample_labels(label: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    """
    The label whose map of zeros and ones, interpolated linearly, is largest: that of most weight among the voxels
    around a position. Borders so run between the voxels, where the nearest voxel would leave steps of a voxel;
    a line that is a voxel thin can be lost between voxels.

    ITK interpolates so too (``LabelImageGenericInterpolateImageFunction``), and ``argmax`` of one interpolated map for
    each label; this takes positions as they are, and as long for a hundred labels as for one.

    Args:
        label: ``(1, D, H, W)``, whole numbers; 0 is the background, and what lies beyond the map.
        position: ``(N, *size)`` in voxels of the map.

    Returns:
        ``(1, *size)``, of the type of ``label``.
    """
    slabs = [_most_weight(label[0], slab.flatten(1)) for slab in position.split(1, dim=1)]
    return torch.cat(slabs).reshape(1, *position.shape[1:])


def warp_labels(label: torch.Tensor, displacement: torch.Tensor) -> torch.Tensor:
    """
    Label maps carried by displacements on their own grid: ``warped(p) = label(p + displacement(p))`` by
    :func:`sample_labels`.

    Args:
        label: ``(B, 1, D, H, W)``, whole numbers.
        displacement: ``(B, N, D, H, W)`` in voxels.

    Returns:
        ``(B, 1, D, H, W)``, of the type of ``label``.
    """
    position = displacement.detach().float() + voxel_grid(displacement.shape[2:], displacement.float())
    return torch.stack([sample_labels(*pair) for pair in zip(label, position, strict=True)])


def resample_labels(
    label: torch.Tensor, label_affine: torch.Tensor, displacement: torch.Tensor, grid_affine: torch.Tensor
) -> torch.Tensor:
    """
    A moving label map in the frame of a fixed grid, by :func:`sample_labels`.

    Args:
        label: ``(1, D, H, W)`` in its own grid, whole numbers.
        label_affine: ``(N + 1, N + 1)``, its voxels to millimetres.
        displacement: ``(N, *size)`` in millimetres at the grid's voxels.
        grid_affine: ``(N + 1, N + 1)``, voxels of the fixed grid to millimetres.

    Returns:
        ``(1, *size)``, of the type of ``label``.
    """
    return sample_labels(label, sampling_positions(label_affine, displacement, grid_affine))


def _most_weight(label: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    """The label of most weight at positions ``(N, P)``: ``(P,)``."""
    first = position.floor()
    around = torch.stack([_labels(label, first, corner) for corner in product((0, 1), repeat=len(position))])
    found = around[0].clone()
    border = (around != found).any(dim=0).nonzero()[:, 0]  # elsewhere all voxels around say the same
    around, share = around[:, border], (position - first)[:, border]
    weights = torch.ones_like(share[:1])
    for axis in share:  # the last axis changes fastest, as the corners do
        weights = torch.stack([weights * (1 - axis), weights * axis], dim=1).flatten(0, 1)
    totals = torch.stack([(weights * (around == one)).sum(dim=0) for one in around])
    found[border] = around.gather(0, totals.argmax(dim=0, keepdim=True))[0]
    return found


def _labels(label: torch.Tensor, voxel: torch.Tensor, corner: tuple[int, ...]) -> torch.Tensor:
    """The labels at voxels ``(N, P)`` moved by a corner, 0 beyond the map: ``(P,)``."""
    index, inside = torch.zeros_like(voxel[0], dtype=torch.long), torch.ones_like(voxel[0], dtype=torch.bool)
    for edge, along, one in zip(label.shape, voxel, corner, strict=True):
        along = along + one
        inside &= (along >= 0) & (along < edge)
        index = index * edge + along.clamp(0, edge - 1).long()
    return label.flatten()[index].where(inside, 0)
