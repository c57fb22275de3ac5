# SPDX-License-Identifier: Apache-2.0
"""The course of a training: a table, curves, and a summary at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer, Workflow

from ..data.tables import number, read_own, write_own
from ..errors import InputError
from ..plots import curves_figure, loss_terms


def step_scalars(optimizer: torch.optim.Optimizer) -> Callable[[Mapping[str, Any]], dict[str, float]]:
    """
    What is logged of each step: the loss, its terms, the learning rate.

    Args:
        optimizer: the trainer's.

    Returns:
        the trainer's output to scalars by name; the averages of an epoch have the names without ``step/``.
    """

    def scalars(output: Mapping[str, Any]) -> dict[str, float]:
        values = {**output["losses"], "learning_rate": optimizer.param_groups[0]["lr"]}
        return {f"step/{name}": value for name, value in values.items()}

    return scalars


class History:
    """
    A row of averages per epoch in ``history.csv``, curves of them in ``curves.png``, and a summary at the end.

    Args:
        folder: where to.
        evaluator: whose measures belong to the epochs that were validated.
        interval: epochs between validations.
    """

    def __init__(self, folder: str, evaluator: Workflow, interval: int = 1) -> None:
        self.folder, self.evaluator, self.interval = Path(folder), evaluator, interval
        self.rows: list[dict[str, float]] = []

    def attach(self, engine: Workflow) -> None:
        """Register with the trainer, after the handler that validates."""
        engine.add_event_handler(Events.STARTED, self.started)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.epoch_completed)
        engine.add_event_handler(Events.COMPLETED, self.completed)

    def started(self, engine: Workflow) -> None:
        """Read the rows of an earlier run; the epochs that are trained (anew) replace theirs."""
        path = self.folder / "history.csv"
        try:
            rows = [{k: number(v) for k, v in row.items() if v} for row in read_own(path, "epoch")]
            self.rows = [{**row, "epoch": int(row["epoch"])} for row in rows]
        except InputError:
            raise
        except (ValueError, KeyError) as error:
            raise InputError(f"{path} is not as a run wrote it ({error}): bring it back, or move it away") from error

    def epoch_completed(self, engine: SupervisedTrainer) -> None:
        validated = engine.state.epoch % self.interval == 0
        measures = {**engine.state.metrics, **(self.evaluator.state.metrics if validated else {})}
        rate = engine.optimizer.param_groups[0]["lr"]
        self.rows = [row for row in self.rows if row["epoch"] < engine.state.epoch]
        self.rows.append(
            {"epoch": engine.state.epoch, "learning_rate": rate, **{k: float(v) for k, v in measures.items()}}
        )
        write_own(self.rows, self.folder / "history.csv")

    def completed(self, engine: Workflow) -> None:
        if not self.rows:
            return
        curves_figure(self.rows).savefig(self.folder / "curves.png", dpi=110)
        print(self.summary(), flush=True)

    def summary(self) -> str:
        """Losses first and last, matching before and after, files."""
        first, last = self.rows[0], self.rows[-1]
        lines = [
            "",
            f"Pre-training ended after epoch {last['epoch']:.0f}",
            f"{'':28}{'first epoch':>12}{'last epoch':>12}",
        ]
        for name in ("train_loss", *loss_terms(self.rows)):
            if name in first and name in last:  # a run may have begun before there was such a term
                lines.append(f"{name.replace('_', ' '):28}{first[name]:12.4f}{last[name]:12.4f}")
        measured = [row for row in self.rows if "ncc_after" in row]
        if measured:
            best = max(measured, key=lambda row: row["ncc_after"])
            pairs = f"held-back pairs, epoch {best['epoch']:.0f}"
            lines.append(f"{pairs:28}{'unmatched':>12}{'matched':>12}")
            for name in ("ncc", "dice"):
                if f"{name}_after" in best:
                    label = {"ncc": "NCC (1 is equal)", "dice": "label Dice"}[name]
                    lines.append(f"{label:28}{best[f'{name}_before']:12.4f}{best[f'{name}_after']:12.4f}")
            lines.append(f"{'folded voxels, %':28}{'':12}{best['folded_percentage']:12.4f}")
        files = sorted(str(path) for path in self.folder.rglob("*") if path.is_file() and "mlruns" not in path.parts)
        lines += ["files:", *(f"  {path}" for path in files)]
        return "\n".join(lines)
