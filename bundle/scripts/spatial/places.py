# SPDX-License-Identifier: Apache-2.0
"""Places that a mask allows, without asking a GPU how many they are: its host would wait for the answer."""

from __future__ import annotations

import torch

BARRED = -1e4
"""Added to the similarity of a place that does not count: no weight after a softmax."""


def place_of(mask: torch.Tensor, rank: torch.Tensor) -> torch.Tensor:
    """
    Args:
        mask: ``(M,)``, boolean.
        rank: ``(K,)``, integers from 0.

    Returns:
        indices of the set places with these ranks, ``(K,)``; the last place of all for a rank that none has.
    """
    return torch.searchsorted(mask.cumsum(0), rank + 1).clamp(max=len(mask) - 1)


def places_of(mask: torch.Tensor, padded: bool | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """
    The set places in their order.

    Args:
        mask: ``(M,)``, boolean.
        padded: to all M, with places behind them that do not count, so that nobody asks how many there are; None
            everywhere but on a CPU, which does not wait and would compute more.

    Returns:
        indices ``(K,)``, and which of them count, boolean ``(K,)``.
    """
    padded = mask.device.type != "cpu" if padded is None else padded
    if not padded:
        index = mask.nonzero()[:, 0]
        return index, torch.ones_like(index, dtype=torch.bool)
    rank = torch.arange(len(mask), device=mask.device)
    return place_of(mask, rank), rank < mask.sum()


def barred(counted: torch.Tensor) -> torch.Tensor:
    """What is added to similarities: 0 for places that count, else :data:`BARRED`; in float32, of the same shape."""
    return (counted.float() - 1) * -BARRED
