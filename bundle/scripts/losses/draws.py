# SPDX-License-Identifier: Apache-2.0
"""Random numbers from a seed that lies on the device, which a ``torch.Generator`` would have to bring to the host."""

from __future__ import annotations

import torch

BITS = 32
FACTORS = (0x7FEB352D, 0x45D9F3B, 0x7FEB352D)
"""Odd and below 2^31: products with 32 bits fit in the 63 of an integer."""
NEXT = 0x9E3779B9
"""Tells the seed of one draw from that of the next: any number would do."""


def mixed(values: torch.Tensor) -> torch.Tensor:
    """
    A permutation of the numbers of 32 bits in which neighbours have nothing in common: shifts and products in turn, as
    the finalisers of hash functions do it.

    Args:
        values: integers of any shape, of whose 64 bits the lower half counts.

    Returns:
        integers below ``2^32``, of the same shape.
    """
    values = values & (1 << BITS) - 1
    for factor in FACTORS:
        values = ((values ^ values >> 16) * factor) & (1 << BITS) - 1
    return values ^ values >> 16


class Draws:
    """
    Independent draws, one after the other; the same ones from the same seed, on any device.

    Args:
        seed: an integer, ``(1,)``.
    """

    def __init__(self, seed: torch.Tensor) -> None:
        self.state = mixed(seed)

    def bits(self, count: int) -> torch.Tensor:
        """``(count,)`` different integers below ``2^32``."""
        self.state = mixed(self.state ^ NEXT)
        return mixed(self.state + torch.arange(count, device=self.state.device))

    def below(self, bound: torch.Tensor, count: int) -> torch.Tensor:
        """
        Args:
            bound: an integer below ``2^31``, a scalar.
            count: of draws.

        Returns:
            integers from 0 to below the bound, ``(count,)``; 0 for a bound of 0.
        """
        return self.bits(count) * bound >> BITS

    def uniform(self, count: int) -> torch.Tensor:
        """``(count,)`` numbers from 0 to below 1, in float32."""
        return (self.bits(count) >> 8).float() / (1 << BITS - 8)

    def some(self, mask: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Places of a mask, each once at most.

        Args:
            mask: ``(M,)``, boolean.
            count: how many are wanted.

        Returns:
            indices ``(K,)``, K the smaller of count and M, and which of them lie in the mask, boolean ``(K,)``: all,
            unless it has fewer.
        """
        key, index = self.bits(len(mask)).masked_fill(~mask, -1).topk(min(count, len(mask)))
        return index, key >= 0
