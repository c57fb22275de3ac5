# SPDX-License-Identifier: Apache-2.0
"""MONAI's trainer for a loss of named terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from ignite.engine import Engine
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents


class TermsTrainer(SupervisedTrainer):
    """
    MONAI's ``SupervisedTrainer`` for a loss that gives ``loss`` and its terms: all of them are in the engine's output
    as ``losses``, numbers by name. That is the one place where a step of ``train.json`` waits for a GPU: nothing else
    asks it for a number, or makes a tensor whose size it decides (tested without one, on a device that gives none), and
    the batch comes from pinned memory. MONAI's ``amp`` asks once more; so do validation and the end of an epoch.

    Args:
        loss_function: (prediction, target) to a dictionary of scalars.
        clip_norm: largest norm of the gradient of all weights, which is scaled down to it; None for no bound.
        kwargs: see ``SupervisedTrainer``.
    """

    def __init__(
        self,
        *,
        loss_function: Callable[..., Mapping[str, torch.Tensor]],
        clip_norm: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(loss_function=self._loss, **kwargs)
        if clip_norm is not None:
            self.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._clip, clip_norm)
        self.terms_function = loss_function

    def _clip(self, _: Engine, clip_norm: float) -> None:
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), clip_norm)

    def _loss(self, prediction: Any, target: Any) -> torch.Tensor:
        terms = self.terms_function(prediction, target)
        values = torch.stack([term.detach().float() for term in terms.values()]).tolist()
        self.state.output["losses"] = dict(zip(terms, values, strict=True))  # type: ignore[index]
        return terms["loss"]
