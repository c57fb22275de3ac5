# SPDX-License-Identifier: Apache-2.0
"""What is known of the map between two views while training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch


class KnownMap(NamedTuple):
    """
    The true maps of those pairs of a batch that are two views of one scan (see
    :class:`~scripts.transforms.RandMatchingViewsd`).

    Args:
        pairs: whether the map is known, ``(B,)``; not on a GPU, whose host would wait for each (see :meth:`of`).
        affine: its affine part, ``(B, N, N + 1)``, fixed voxels to moving voxels.
        displacement: the whole map, ``(B, N, D, H, W)`` in voxels.
        start: a displacement in the affine-aligned frame, the true one disturbed, from which local matching has to find
            it, ``(B, N, D, H, W)`` in voxels.
    """

    pairs: Sequence[bool] | torch.Tensor
    affine: torch.Tensor
    displacement: torch.Tensor
    start: torch.Tensor

    @classmethod
    def of(cls, pairs: Sequence[bool] | torch.Tensor, *maps: torch.Tensor) -> KnownMap:
        """
        Args:
            pairs: as :class:`~scripts.training.PrepareKnownMaps` gives it, or a tensor on any device.
            maps: the other fields.
        """
        flags = pairs.tolist() if isinstance(pairs, torch.Tensor) else pairs
        return cls(tuple(map(bool, flags)), *maps)

    def where(self, true: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """``true`` for pairs whose map is known, ``other`` for the rest, ``(B, ...)`` all."""
        chosen = [one if is_known else two for is_known, one, two in zip(self.pairs, true, other, strict=True)]
        return torch.stack(chosen)
