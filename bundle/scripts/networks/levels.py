# SPDX-License-Identifier: Apache-2.0
"""What a matching head is given of an image: the image itself and the features of all levels of the backbone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import nn


def encoder_and_decoder(others: Sequence[torch.Tensor]) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    """
    The levels beside f^g and f^l, in the order of computation, as those of the encoder and those of the decoder: the
    former have full size once more.
    """
    encoder = (len(others) + 1) // 2
    return tuple(others[:encoder]), tuple(others[encoder:])


class Levels(NamedTuple):
    """
    An image and its features, with the batch first everywhere.

    Args:
        image: as the backbone saw it, ``(B, C, D, H, W)``.
        bottleneck: global features f^g, ``(B, Cg, d, h, w)``, of the padded image.
        local: local features f^l, ``(B, Cl, D, H, W)``.
        encoder: features of the encoder's other levels, of the padded image, from full size down.
        decoder: features of the decoder's other levels, of the padded image, from the bottleneck's neighbour up.
    """

    image: torch.Tensor
    bottleneck: torch.Tensor
    local: torch.Tensor
    encoder: tuple[torch.Tensor, ...] = ()
    decoder: tuple[torch.Tensor, ...] = ()

    @classmethod
    def of(cls, backbone: nn.Module, image: torch.Tensor) -> Levels:
        """
        Args:
            backbone: image to (f^g, f^l); its method ``levels``, if it has one, gives the other levels too (see
                :meth:`~scripts.networks.UNetBackbone.levels`).
            image: ``(B, C, D, H, W)``.
        """
        bottleneck, local, *others = getattr(backbone, "levels", backbone)(image)
        return cls(image, bottleneck, local, *encoder_and_decoder(others))

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Levels:
        """Each tensor replaced by what a function makes of it."""
        image, bottleneck, local = (function(tensor) for tensor in self[:3])
        return Levels(image, bottleneck, local, tuple(map(function, self.encoder)), tuple(map(function, self.decoder)))

    def followed_by(self, other: Levels, rows: Sequence[int]) -> Levels:
        """The same batch, followed by so many rows of another one."""
        if not rows:
            return self
        chosen = [slice(None)] if len(rows) == len(self.image) else [slice(row, row + 1) for row in rows]
        added = iter((other.image, *other.features()))  # in the order of map

        def joined(mine: torch.Tensor) -> torch.Tensor:
            theirs = next(added)
            return torch.cat([mine, *(theirs[some] for some in chosen)])

        return self.map(joined)

    def features(self) -> tuple[torch.Tensor, ...]:
        """All but the image, f^g and f^l first."""
        return (self.bottleneck, self.local, *self.encoder, *self.decoder)
