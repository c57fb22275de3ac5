# SPDX-License-Identifier: Apache-2.0
"""Labels of which some structures were not drawn: what a training leaves open there, and what is not scored."""

from __future__ import annotations

from typing import Any

import torch
from monai.inferers import Inferer
from torch import nn


def leave_open(logits: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
    """
    The logits of what a label map can tell: where a structure was not drawn, what it calls background is background or
    that structure, so that their probabilities are added, ``log(exp(z_0) + sum of exp(z_k) of those not drawn)`` (the
    marginal loss of Shi et al., "Marginal loss and exclusion loss for partially supervised multi-organ segmentation",
    Medical Image Analysis 2021, whatever loss follows).

    Args:
        logits: ``(B, 1 + K, ...)``, the background's first.
        drawn: ``(B, K)``, whether each structure was drawn.

    Returns:
        of the same shape; the probability of what was not drawn is 0.
    """
    rest = ~drawn.to(logits.device, torch.bool)
    rest = rest.reshape(*rest.shape, *[1] * (logits.dim() - 2))
    lowest = torch.finfo(logits.dtype).min
    nothing = torch.full_like(logits[:, 1:], lowest)
    open_ones = torch.cat([logits[:, :1], torch.where(rest, logits[:, 1:], nothing)], dim=1)
    return torch.cat([open_ones.logsumexp(dim=1, keepdim=True), torch.where(rest, nothing, logits[:, 1:])], dim=1)


def score_drawn(found: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """
    What is found of the structures that a label map shows; the others become background and are not scored.

    Args:
        found: numbers of the structures, any shape.
        label: of the same.
    """
    return torch.where(torch.isin(found, label.unique()), found, torch.zeros_like(found))


class LeaveOpenInferer(Inferer):
    """
    Leaves structures that were not drawn open in what a training compares with the labels, see :func:`leave_open`.

    Args:
        inferer: calls the network.
    """

    def __init__(self, inferer: Inferer) -> None:
        self.inferer = inferer

    def __call__(self, inputs: torch.Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> torch.Tensor:  # type: ignore[override]
        """
        Args:
            inputs: image, ``(B, C, D, H, W)``.
            network: gives logits ``(B, 1 + K, D, H, W)``.
            args: further arguments of the inferer.
            kwargs: further named arguments of it; ``drawn`` ``(B, K)`` among them.

        Returns:
            logits of the same shape.
        """
        drawn = kwargs.pop("drawn")
        return leave_open(self.inferer(inputs, network, *args, **kwargs), drawn)
