# SPDX-License-Identifier: Apache-2.0
"""The state of a training: kept after every epoch and on the way, taken up again exactly."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.distributed import get_rank, get_world_size
from ignite.engine import Events
from ignite.metrics import Metric
from monai.engines import SupervisedTrainer, Workflow
from torch import nn

from ..data.samplers import DrawSampler
from ..errors import InputError, is_lost_worker, user_message
from ..files import load_file, save_atomically
from .checkpoints import CHECKPOINT, MODEL, keep_copy, kept_copies, load_optimizer, load_weights
from .distributed import any_rank, is_lost_process
from .interruptions import Interruptions


class TrainingState:
    """
    Handler that keeps ``checkpoint.pt``, everything needed to go on exactly, and ``model.pt``, the network's plain
    state dictionary at the best validation.

    The checkpoint is written after every epoch; where the draws are numbered (:class:`~scripts.data.DrawSampler`) also
    within an epoch: every ``interval`` steps, on Ctrl-C or SIGTERM (a scheduler's notice) after the step at hand, and,
    in a single process, when data cannot be read any more. Of several processes the first one writes. Nothing random is
    kept: draws are numbered, and the network draws nothing.

    Args:
        folder: where to.
        network: whose weights are kept.
        optimizer: its state goes on too.
        lr_scheduler: its state goes on too.
        evaluator: the MONAI evaluator whose key metric says which network is best.
        resume: load ``checkpoint.pt`` when training starts; a fresh start where there is none.
        model_folder: where ``model.pt`` goes, if elsewhere.
        keep: checkpoints to keep: beyond 1, those of the last epochs, also as ``checkpoint_0007.pt``.
        interval: steps between checkpoints within an epoch; 0 for none.
        metrics: averages over the epoch, which go on too.
    """

    def __init__(
        self,
        folder: str,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        lr_scheduler: Any,
        evaluator: Workflow,
        resume: bool = False,
        model_folder: str | None = None,
        keep: int = 1,
        interval: int = 0,
        metrics: Sequence[Metric] = (),
    ) -> None:
        self.folder, self.network, self.evaluator, self.resume = Path(folder), network, evaluator, resume
        self.model_folder, self.keep, self.interval = Path(model_folder or folder), keep, interval
        self.optimizer, self.lr_scheduler = optimizer, lr_scheduler
        self.metrics = list(metrics)
        self.metric_states: list[Mapping[str, Any]] = []
        self.interruptions = Interruptions()
        self.between_steps = False

    def attach(self, engine: SupervisedTrainer) -> None:
        """Register with the trainer, after the handlers that validate and step the schedule and the progress bar."""
        engine.add_event_handler(Events.STARTED, self.load)
        engine.add_event_handler(Events.STARTED, self.keep_start)
        engine.add_event_handler(Events.STARTED, self.interruptions.listen)
        engine.add_event_handler(Events.EPOCH_STARTED, self.load_metrics)
        engine.add_event_handler(Events.GET_BATCH_STARTED, self.before_step)
        engine.add_event_handler(Events.ITERATION_STARTED, lambda: setattr(self, "between_steps", False))
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)
        engine.add_event_handler(Events.COMPLETED, self.completed)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self.failed)

    @property
    def path(self) -> Path:
        return self.folder / CHECKPOINT

    def load(self, engine: SupervisedTrainer) -> None:
        """Restore everything from ``checkpoint.pt``, where asked for and there."""
        found = self.resume and self.path.exists()
        if any_rank(found) and not found:
            raise InputError(f"{self.path} is not there for process {get_rank()}: all machines must share the folder")
        if not found:
            return
        state = self._read()
        parts = {"network", "epoch", "best", "optimizer", "lr_scheduler"}
        if not isinstance(state, dict) or not parts <= set(state):
            raise InputError(f"{self.path} is not a checkpoint of this training: pass another --output_dir")
        load_weights(self.network, state["network"], self.path)
        load_optimizer(self.optimizer, state["optimizer"])
        self.lr_scheduler.load_state_dict(state["lr_scheduler"])
        self._follow_schedule()
        if state.get("scaler") and engine.scaler is not None:
            engine.scaler.load_state_dict(state["scaler"])
        engine.state.epoch = state["epoch"]
        engine.state.iteration = state["epoch"] * engine.state.epoch_length
        if state.get("epoch_length") == engine.state.epoch_length:  # else the epoch begins anew
            engine.state.iteration += state["step"]
            if state["step"]:
                loader: Any = engine.data_loader
                loader.sampler.begin_after(state["step"] * loader.batch_size)
                self.metric_states = state["metrics"]
        self.evaluator.state.best_metric, self.evaluator.state.best_metric_epoch = state["best"]
        if get_rank() == 0:
            print(f"resumed from {self.path} after {self._where(engine)}", flush=True)

    def keep_start(self, engine: SupervisedTrainer) -> None:
        """Write ``model.pt`` where the weights that training begins with were validated; epochs have to be better."""
        if self.evaluator.state.best_metric_epoch == engine.state.epoch == 0 and get_rank() == 0:
            save_atomically(self.network.state_dict(), self.model_folder / MODEL)

    def _read(self) -> Any:
        try:
            return load_file(self.path)
        except InputError as error:
            older = kept_copies(self.path)
            raise InputError(f"{error}" + (f"; copy {older[-1]} over it to go on" if older else "")) from error

    def _follow_schedule(self) -> None:
        """A schedule by formula may have become longer since the checkpoint: take up its rate, not the stored one."""
        schedule = self.lr_scheduler
        if isinstance(schedule, torch.optim.lr_scheduler.LambdaLR):
            rates = zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)
            for group, (rate, factor) in zip(schedule.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor(schedule.last_epoch)

    def load_metrics(self, engine: SupervisedTrainer) -> None:
        """Averages of a resumed epoch go on, unless the number of processes has changed."""
        for metric, state in zip(self.metrics, self.metric_states, strict=False):
            if len(next(iter(state.values()))) == get_world_size():
                metric.load_state_dict(state)
        self.metric_states = []

    def before_step(self, engine: SupervisedTrainer) -> None:
        """Between two steps: save where it is time, stop where that was asked for."""
        self.between_steps = True
        step = engine.state.iteration % engine.state.epoch_length
        if step % engine.accumulation_steps:
            return  # gradients of an unfinished step are not kept
        stop = any_rank(self.interruptions.stop_asked)
        due = self.interval and step and step % self.interval == 0
        if step and (stop or due) and self._exact(engine):
            self._write(engine, step)
        if stop:
            raise KeyboardInterrupt(self._kept())

    @staticmethod
    def _exact(engine: SupervisedTrainer) -> bool:
        return isinstance(getattr(engine.data_loader, "sampler", None), DrawSampler)

    def failed(self, engine: SupervisedTrainer, error: BaseException) -> None:
        """Keep what can be kept, say so, and hand the error on."""
        if is_lost_process(error):
            raise InputError(f"another process of this training is gone, so this one ends; {self._kept()}") from error
        if get_world_size() == 1:  # else torchrun's own SIGTERM would end this process before the line is shown
            self.interruptions.stop_listening()
        step = engine.state.iteration % (engine.state.epoch_length or 1)
        unexpected = self.between_steps and not isinstance(error, KeyboardInterrupt) and self._exact(engine)
        if unexpected and step and not step % engine.accumulation_steps and get_world_size() == 1:
            self.between_steps = False  # for the second time
            self._write(engine, step)
            if not is_lost_worker(error):
                print(f"\n{self._kept()}", file=sys.stderr, flush=True)
        if is_lost_worker(error) and self.interruptions.stop_asked:
            raise KeyboardInterrupt(self._kept()) from error
        if is_lost_worker(error):
            raise InputError(f"{user_message(error)}; {self._kept()}") from error
        raise error

    def _kept(self) -> str:
        if not self.path.exists():
            return "nothing was saved yet"
        state = load_file(self.path)
        step = f" and {state['step']} steps" if state["step"] else ""
        return f"saved in {self.path}: {state['epoch']} epochs{step}; the same command with --resume True goes on there"

    def _where(self, engine: SupervisedTrainer) -> str:
        step = engine.state.iteration - engine.state.epoch * engine.state.epoch_length
        return f"epoch {engine.state.epoch}" + (f" and {step} steps" if step else "")

    def completed(self, engine: SupervisedTrainer) -> None:
        """Say where the best weights are; without any validation they are those of the last epoch."""
        self.interruptions.stop_listening()
        if get_rank() > 0:
            return
        best, path = self.evaluator.state, self.model_folder / MODEL
        if best.best_metric_epoch >= 0:
            when = f"of epoch {best.best_metric_epoch}" if best.best_metric_epoch else "those before the first epoch"
            found = f"best weights, {when} with {best.key_metric_name} {best.best_metric:.4f}"
        else:
            found = "weights of the last epoch (none was validated, see --val_interval)"
            save_atomically(self.network.state_dict(), path)
        print(f"{found}: use them with --model {path}", flush=True)

    def save(self, engine: SupervisedTrainer) -> None:
        """Write ``model.pt`` if this epoch's validation was the best, then ``checkpoint.pt``."""
        best = self.evaluator.state
        if best.best_metric_epoch == engine.state.epoch and get_rank() == 0:
            save_atomically(self.network.state_dict(), self.model_folder / MODEL)
        self._write(engine, 0)
        if self.keep > 1 and get_rank() == 0:
            keep_copy(self.path, engine.state.epoch, self.keep)

    def _write(self, engine: SupervisedTrainer, step: int) -> None:
        metrics = [metric.state_dict() for metric in self.metrics] if step else []  # of all ranks
        if get_rank() > 0:
            return
        best, scaler = self.evaluator.state, getattr(engine, "scaler", None)
        content = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "lr_scheduler": self.lr_scheduler.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else {},
            "epoch": engine.state.epoch - (1 if step else 0),
            "step": step,
            "epoch_length": engine.state.epoch_length,
            "metrics": metrics,
            "best": [best.best_metric, best.best_metric_epoch],
        }
        save_atomically(content, self.path)
