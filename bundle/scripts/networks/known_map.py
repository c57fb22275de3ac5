# SPDX-License-Identifier: Apache-2.0
"""What is known of the map between two views while training."""

from __future__ import annotations

from typing import NamedTuple

import torch


class KnownMap(NamedTuple):
    """
    The true maps of those pairs of a batch that are two views of one scan (see
    :class:`~scripts.transforms.RandMatchingViewsd`).

    Args:
        pairs: 1 where the map is known, else 0, ``(B,)``.
        affine: its affine part, ``(B, N, N + 1)``, fixed voxels to moving voxels.
        displacement: the whole map, ``(B, N, D, H, W)`` in voxels.
        start: a displacement in the affine-aligned frame, the true one disturbed, from which local matching has to find
            it, ``(B, N, D, H, W)`` in voxels.
    """

    pairs: torch.Tensor
    affine: torch.Tensor
    displacement: torch.Tensor
    start: torch.Tensor

    def where(self, true: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """``true`` for pairs whose map is known, ``other`` for the rest, ``(B, ...)`` all."""
        return torch.where(self.pairs.reshape(-1, *[1] * (true.dim() - 1)) > 0, true, other)
