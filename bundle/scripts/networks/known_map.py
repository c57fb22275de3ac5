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
        pairs: B numbers, 0 where the map is not known, else the seed of what is drawn for it. Not on a GPU, whose host
            would wait for each (see :func:`seeds_of`).
        affine: its affine part, ``(B, N, N + 1)``, fixed voxels to moving voxels.
        displacement: the whole map, ``(B, N, D, H, W)`` in voxels.
        start: a displacement in the affine-aligned frame, the true one disturbed, from which local matching has to find
            it, ``(B, N, D, H, W)`` in voxels.
    """

    pairs: Sequence[int]
    affine: torch.Tensor
    displacement: torch.Tensor
    start: torch.Tensor

    @classmethod
    def of(cls, pairs: Sequence[int] | torch.Tensor, affine: torch.Tensor, *fields: torch.Tensor) -> KnownMap:
        """
        Args:
            pairs: as :class:`~scripts.training.PrepareKnownMaps` gives them, or a tensor on any device, other than 0
                where the map is known.
            affine: see the class.
            fields: the other ones.
        """
        return cls(seeds_of(pairs, fields[0]) if isinstance(pairs, torch.Tensor) else pairs, affine, *fields)

    def followed_by_unknown(self, rows: Sequence[int]) -> KnownMap:
        """The same batch, followed by so many rows of it, whose maps count as not known."""
        if not rows:
            return self
        fields = (torch.cat([field, *(field[row : row + 1] for row in rows)]) for field in self[1:])
        return KnownMap((*self.pairs, *(0 for _ in rows)), *fields)

    def where(self, true: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """``true`` for pairs whose map is known, ``other`` for the rest, ``(B, ...)`` all."""
        chosen = [one if is_known else two for is_known, one, two in zip(self.pairs, true, other, strict=True)]
        return torch.stack(chosen)


def seeds_of(pairs: torch.Tensor, displacement: torch.Tensor) -> tuple[int, ...]:
    """
    Seeds by the known maps themselves: the same step draws the same whenever it is computed.

    Args:
        pairs: other than 0 where the map is known, ``(B,)``.
        displacement: see :class:`KnownMap`.

    Returns:
        B integers, 0 where the map is not known.
    """
    first = displacement.flatten(1)[:, 0].float().contiguous().view(torch.int32)
    return tuple((number | 1) * (known != 0) for number, known in zip(first.tolist(), pairs.tolist(), strict=True))
