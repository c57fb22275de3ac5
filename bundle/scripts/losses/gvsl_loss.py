# SPDX-License-Identifier: Apache-2.0
"""The pre-training loss: a weighted sum of named terms, of both ways of a match."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..errors import InputError
from .terms import MatchingTerm, RedundancyTerm, RestorationTerm, SmoothnessTerm, Term, people


class GVSLLoss(nn.Module):
    """
    The weighted sum of terms; by default those of the paper, NCC(A->B, B) + smoothness + MSE(A', A), each of weight 1,
    and the redundancy of the features, only logged.

    The maps were found from what the network saw; the terms look at the clean images. Where the prediction holds a
    ``backward`` match, each term that has both ways is their mean.

    Args:
        terms: by name, see :class:`~scripts.losses.Term`.

    Raises:
        InputError: for a negative weight.
    """

    def __init__(self, terms: Mapping[str, Term] | None = None) -> None:
        super().__init__()
        if terms is None:
            terms = {
                "matching": MatchingTerm(),
                "smoothness": SmoothnessTerm(),
                "restoration": RestorationTerm(),
                "redundancy": RedundancyTerm(weight=0.0),
            }
        for name, term in terms.items():
            if term.weight < 0:
                raise InputError(f"{name}_weight must not be negative: {term.weight}")
        self.terms = nn.ModuleDict(terms)

    def forward(self, prediction: Mapping[str, Any], clean: torch.Tensor) -> dict[str, torch.Tensor]:
        """
        Args:
            prediction: what :class:`~scripts.networks.GVSL` returns for two images while training.
            clean: the clean fixed and moving images, stacked as channels, ``(B, 2 C, D, H, W)``.

        Returns:
            scalars: ``loss``, the weighted sum, and the terms by name, without their weights.
        """
        fixed, moving = clean.chunk(2, dim=1)
        ways = [(prediction, {"fixed": fixed, "moving": moving})]
        if "backward" in prediction:
            pairs = people(prediction)
            first, second = (torch.cat([image[pair] for pair in pairs]) for image in (moving, fixed))
            ways.append((prediction["backward"], {"fixed": first, "moving": second}))
        terms: dict[str, torch.Tensor] = {}
        weighted: list[torch.Tensor] = []
        term: Any
        for name, term in self.terms.items():
            terms[name] = torch.stack([term(*way) for way in ways[: None if term.both_ways else 1]]).mean()
            weighted.append(term.weight * terms[name])
        return {"loss": torch.stack(weighted).sum(), **terms}
