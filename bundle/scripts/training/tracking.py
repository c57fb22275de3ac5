# SPDX-License-Identifier: Apache-2.0
"""Experiment tracking: what MONAI's ``--tracking mlflow`` needs to be told, and what it lacks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ignite.engine import Events
from monai.engines import Workflow
from monai.handlers import MLFlowHandler

from ..errors import InputError


def check_tracking(executed_config: str | bool | None, tracking_uri: str) -> None:
    """
    Refuse what MLflow will refuse when training is about to start.

    Args:
        executed_config: ``save_execute_config``: a boolean until ``--tracking`` puts something else in its place.
        tracking_uri: where MLflow keeps its records.

    Raises:
        InputError: when tracking is on and MLflow is not installed, or cannot keep records there.
    """
    if isinstance(executed_config, bool):
        return
    uri = os.environ.get("MLFLOW_TRACKING_URI", tracking_uri)
    if "://" not in uri or uri.startswith("file:"):
        raise InputError(f"MLflow keeps no records in {uri}: pass --tracking_uri sqlite:///<file> or that of a server")
    for module in ["mlflow", "sqlalchemy", "alembic"] if uri.startswith("sqlite:") else ["mlflow"]:
        if find_spec(module) is None:
            raise InputError(f"--tracking mlflow needs the package {module}: pip install mlflow")


def complete_tracking(
    trainer: Workflow,
    handlers: Iterable[Any],
    output_dir: str,
    scalars: Callable[[Any], Mapping[str, float]] | None = None,
) -> None:
    """
    Complete MONAI's ``MLFlowHandler``, where ``--tracking`` has put one: losses by term; the executed config at the
    start, new pictures after each epoch, ``curves.png`` at the end. Without tracking, and in other processes than the
    first, nothing happens.

    Args:
        trainer: whose run is tracked.
        handlers: of the trainer.
        output_dir: folder of the run.
        scalars: the trainer's output to what is logged of each step; None leaves MONAI's choice (loss, learning rate).
    """
    folder = Path(output_dir)
    for tracker in handlers:
        if not isinstance(tracker, MLFlowHandler):
            continue
        if scalars is not None:
            tracker.output_transform, tracker.optimizer_param_names = scalars, ()
        paths = [Path(path) for path in tracker.artifacts if path]
        # MONAI 1.6.1 takes a plain output_dir for an expression: "runs/mine + '/config_....json'"
        configs = [path if path.exists() else folder / path.name.strip("'") for path in paths]
        tracker.artifacts = (folder / "curves.png",)
        trainer.add_event_handler(Events.STARTED | Events.EPOCH_COMPLETED, Files(tracker, configs, folder / "pictures"))


class Files:
    """
    Hands files to MLflow, each once, as soon as they are there: MONAI does so at the end, which a run may not reach.

    Args:
        tracker: knows client and run.
        configs: the executed config.
        pictures: folder of PNGs.
    """

    def __init__(self, tracker: MLFlowHandler, configs: list[Path], pictures: Path) -> None:
        self.tracker, self.configs, self.pictures = tracker, configs, pictures
        self.known: set[Path] = set()

    def __call__(self) -> None:
        run: Any = self.tracker.cur_run
        for path in sorted({*self.configs, *self.pictures.glob("*.png")} - self.known):
            place = self.pictures.name if path.parent == self.pictures else None
            self.tracker.client.log_artifact(run.info.run_id, str(path), place)
            self.known.add(path)
