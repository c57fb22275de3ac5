# SPDX-License-Identifier: Apache-2.0
"""Handlers of the engines: progress, pictures, and the stop at a broken loss."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from monai.engines import Workflow
from monai.engines.utils import IterationEvents
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from ..errors import InputError
from ..plots import matching_figure
from ..progress import bar_options
from .checkpoints import CHECKPOINT


class StopAtBrokenLoss:
    """
    End training when the loss is no longer finite, before the weights take it in; at the end of an epoch also when the
    weights or what they predict for held-back pairs are not finite, before they are saved.

    Args:
        folder: of the checkpoint.
        network: whose weights are looked at.
        evaluator: whose predictions are looked at.
    """

    def __init__(self, folder: str, network: torch.nn.Module, evaluator: Workflow) -> None:
        self.folder, self.network, self.evaluator = Path(folder), network, evaluator

    def attach(self, engine: Workflow) -> None:
        """Register with the trainer, before the handlers that validate and save."""
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.check_weights)
        self.evaluator.add_event_handler(Events.ITERATION_COMPLETED, self.check_prediction)

    def __call__(self, engine: Workflow) -> None:
        state = engine.state
        losses = state.output["losses"]
        if not math.isfinite(losses["loss"]):
            terms = ", ".join(f"{name} {value:g}" for name, value in losses.items() if name != "loss")
            self._stop(f"the loss is not finite at epoch {state.epoch}, iteration {state.iteration} ({terms})")

    def check_weights(self, engine: Workflow) -> None:
        if not all(weight.isfinite().all() for weight in self.network.parameters()):
            self._stop(f"the weights are not finite after epoch {engine.state.epoch}")

    def check_prediction(self, evaluator: Workflow) -> None:
        if not evaluator.state.output["pred"]["displacement"].isfinite().all():
            self._stop(f"what the network predicts is not finite after epoch {evaluator.state.epoch}")

    def _stop(self, what: str) -> None:
        path = self.folder / CHECKPOINT
        kept = f"the last good checkpoint is {path}" if path.exists() else "no epoch was completed, nothing was saved"
        raise InputError(f"{what}; {kept}: lower --learning_rate or the weights of the loss")


class ProgressBar:
    """
    One bar over the whole training: epoch, losses, what the last validation gave, time left; in a log file a line a
    minute. Ignite's bar knows the time left of one epoch alone, and redraws at each step whatever interval it is given.

    Args:
        evaluator: whose key metric is shown.
    """

    def __init__(self, evaluator: Workflow | None = None) -> None:
        self.evaluator = evaluator
        self.bar: tqdm | None = None

    def attach(self, engine: Workflow) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self.epoch_started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.iteration_completed)
        engine.add_event_handler(Events.COMPLETED, self.completed)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self.failed)

    def epoch_started(self, engine: Workflow) -> None:
        if self.bar is None:
            total, done = engine.state.max_epochs * engine.state.epoch_length, engine.state.iteration
            self.bar = tqdm(total=total, initial=done, unit="step", **bar_options(width=None))
        self.bar.set_description(f"epoch {engine.state.epoch}/{engine.state.max_epochs}", refresh=False)

    def iteration_completed(self, engine: Workflow) -> None:
        if self.bar is None:
            return
        output = engine.state.output
        output = output[0] if isinstance(output, list) else output  # MONAI takes batches apart
        values = dict(output.get("losses") or {"loss": float(output["loss"])})
        if self.evaluator is not None and self.evaluator.state.metrics:
            name = self.evaluator.state.key_metric_name
            values[name] = self.evaluator.state.metrics[name]
        self.bar.set_postfix({name: f"{value:.3f}" for name, value in values.items()}, refresh=False)
        self.bar.update()

    def completed(self, engine: Workflow) -> None:
        if self.bar is not None:
            self.bar.close()

    def failed(self, engine: Workflow, error: BaseException) -> None:
        """End the bar's line, so that the error gets one of its own; a handler after this one must raise it."""
        self.completed(engine)


class MatchingPicture:
    """
    A picture of the first held-back pair, as PNG and in TensorBoard.

    Args:
        folder: where to; PNGs go to ``pictures`` in it.
        network: restores the corrupted image.
        interval: epochs between pictures.
        spacing: voxel size in millimetres.
    """

    def __init__(
        self, folder: str, network: torch.nn.Module, interval: int = 5, spacing: tuple[float, ...] = (1, 1, 1)
    ) -> None:
        self.folder, self.network, self.interval, self.spacing = Path(folder), network, interval, spacing

    def attach(self, engine: Workflow) -> None:
        """Register with the evaluator."""
        engine.add_event_handler(Events.ITERATION_COMPLETED(once=1), self.__call__)

    def __call__(self, engine: Workflow) -> None:
        if engine.state.epoch % self.interval:
            return
        data: dict[str, Any] = {**engine.state.batch, **engine.state.output}
        with torch.no_grad():
            corrupted = data["corrupted"][:1].to(engine.state.device)
            restored = self.network(corrupted)
        volumes = [data["image"], data["moving"], data["pred"]["warped"], corrupted, restored]
        fixed, moving, warped, damaged, repaired = (volume[0, 0].float().cpu().numpy() for volume in volumes)
        displacement = data["pred"]["displacement"][0].float().cpu().numpy()
        title = f"epoch {engine.state.epoch}"
        figure = matching_figure(fixed, moving, warped, displacement, damaged, repaired, self.spacing, title)
        path = self.folder / "pictures" / f"epoch_{engine.state.epoch:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110)
        with SummaryWriter(str(self.folder / "tensorboard")) as writer:
            writer.add_figure("matching", figure, engine.state.epoch)
