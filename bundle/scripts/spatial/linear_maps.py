# SPDX-License-Identifier: Apache-2.0
"""Linear maps found by matching: how far two differ, which can be of anatomy, which have an inverse."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def between_lengths(linear: torch.Tensor, spacing: Sequence[float]) -> torch.Tensor:
    """
    A linear map of voxels as one of lengths, ``S L S^-1`` with ``S = diag(spacing)``; a rotation is one there alone.

    Args:
        linear: ``(B, N, N)``.
        spacing: of the voxels along each axis, N numbers; their inverses lead back to voxels.

    Returns:
        ``(B, N, N)``.
    """
    edges = torch.tensor(spacing, dtype=linear.dtype, device=linear.device)
    return linear * edges[:, None] / edges


def apart(linear: torch.Tensor, other: torch.Tensor) -> float:
    """By how much of a length two maps of lengths, ``(B, N, N)``, differ at most: 0.03 for rotations by 1.7 degrees."""
    return float(torch.linalg.matrix_norm(linear - other, ord=2).max())


def leads_back(linear: torch.Tensor) -> bool:
    """Whether maps ``(B, N, N)`` have an inverse; of scans that show nothing alike they may be all but flat."""
    return bool((torch.linalg.svdvals(linear.float().nan_to_num(0.0)) > 0.1).all())


def plausible(linear: torch.Tensor) -> torch.Tensor:
    """Maps of lengths, ``(B, N, N)``; the identity for one that mirrors, stretches or squeezes to more than twice."""
    stretch = torch.linalg.svdvals(linear.nan_to_num(0.0))
    fits = (torch.linalg.det(linear) > 0) & (stretch[:, 0] < 2) & (stretch[:, -1] > 0.5)
    return torch.where(fits[:, None, None], linear, torch.eye(linear.shape[1]).to(linear))
