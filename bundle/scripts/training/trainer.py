# SPDX-License-Identifier: Apache-2.0
"""MONAI's trainer for a loss of named terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from monai.engines import SupervisedTrainer


class TermsTrainer(SupervisedTrainer):
    """
    MONAI's ``SupervisedTrainer`` for a loss that gives ``loss`` and its terms: all of them are in the engine's output
    as ``losses``, numbers by name. That is the one place where a step waits for the device.

    Args:
        loss_function: (prediction, target) to a dictionary of scalars.
        kwargs: see ``SupervisedTrainer``.
    """

    def __init__(self, *, loss_function: Callable[..., Mapping[str, torch.Tensor]], **kwargs: Any) -> None:
        super().__init__(loss_function=self._loss, **kwargs)
        self.terms_function = loss_function

    def _loss(self, prediction: Any, target: Any) -> torch.Tensor:
        terms = self.terms_function(prediction, target)
        values = torch.stack([term.detach().float() for term in terms.values()]).tolist()
        self.state.output["losses"] = dict(zip(terms, values, strict=True))  # type: ignore[index]
        return terms["loss"]
