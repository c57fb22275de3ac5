# SPDX-License-Identifier: Apache-2.0
"""Scores of a segmentation in the scan's own grid: tables by case and structure, a summary, two pictures."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Events
from monai.data import MetaTensor
from monai.engines import Workflow
from monai.handlers import write_metrics_reports
from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice

from ..data.result_names import result_names
from ..files import write_text
from .figures import label_planes, overlay_figure, save

MEASURES = ("dice", "hausdorff_95", "surface_dice")


def case_scores(
    prediction: torch.Tensor, label: torch.Tensor, spacing: Sequence[float], tolerance: float
) -> dict[str, list[float]]:
    """
    Compare one prediction with its label, by MONAI's functions. Its metric handlers will not do: they know no voxel
    size, and give a structure that was not found the distance NaN, which a mean leaves out.

    Args:
        prediction: one-hot ``(C, D, H, W)``, background first.
        label: one-hot of the same shape.
        spacing: voxel size in millimetres.
        tolerance: millimetres within which surfaces count as the same.

    Returns:
        by measure one number a structure: Dice, 95 % Hausdorff distance (mm), surface Dice. NaN where the label does
        not show the structure; where the prediction alone lacks it the distance is infinite.
    """
    spacing = [float(size) for size in spacing]  # MONAI refuses mixed types
    both = (torch.as_tensor(prediction)[None], torch.as_tensor(label)[None])
    there, found = both[1][0, 1:].flatten(1).any(1), both[0][0, 1:].flatten(1).any(1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* is all 0|.*always_return_as_numpy")  # the latter of MONAI itself
        scores = {
            "dice": compute_dice(*both, include_background=False)[0],
            "hausdorff_95": compute_hausdorff_distance(*both, percentile=95, spacing=spacing)[0],
            "surface_dice": compute_surface_dice(*both, [tolerance] * len(there), spacing=spacing)[0],
        }
    lost = {"dice": 0.0, "hausdorff_95": math.inf, "surface_dice": 0.0}
    return {
        name: torch.where(there.cpu(), torch.where(found.cpu(), values.cpu(), lost[name]), math.nan).tolist()
        for name, values in scores.items()
    }


class SegmentationScores:
    """
    Handler of an evaluator that scores label maps in the scan's own grid and writes ``<measure>_raw.csv`` (a row a
    scan, a column a structure) and ``<measure>_summary.csv`` in the form of MONAI's ``MetricsSaver``, which cannot name
    the structures; ``summary.json``, ``median.png`` and ``worst.png``.

    Args:
        folder: where to.
        classes: names of the structures.
        tolerance: of the surface Dice, millimetres.
    """

    def __init__(self, folder: str, classes: Sequence[str], tolerance: float = 2.0) -> None:
        self.folder, self.classes, self.tolerance = Path(folder), list(classes), tolerance
        self.cases: list[dict[str, Any]] = []

    def attach(self, engine: Workflow) -> None:
        """Register with the evaluator."""
        engine.add_event_handler(Events.STARTED, lambda _: self.cases.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.add)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def add(self, engine: Workflow) -> None:
        """Score the cases of a batch: ``pred`` and ``label`` one-hot, ``image`` within 0..1, all in one grid."""
        for data in engine.state.output:
            label: MetaTensor = data["label"]
            scores = case_scores(data["pred"], label, label.pixdim.tolist(), self.tolerance)
            numbers = (data["pred"].argmax(0, keepdim=True), label.argmax(0, keepdim=True))
            planes, spacing = label_planes(data["image"], *numbers)
            name = str(data["image"].meta.get("filename_or_obj", len(self.cases)))
            self.cases.append({"name": name, "scores": scores, "planes": planes, "spacing": spacing})

    def write(self, engine: Workflow) -> None:
        """Write everything and print the summary."""
        names = [case["name"] for case in self.cases]
        tables: dict[str, Any] = {
            measure: np.array([case["scores"][measure] for case in self.cases]) for measure in MEASURES
        }
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=RuntimeWarning)  # a structure that no label shows has no mean
            operations = ["mean", "median", "notnans"]
            write_metrics_reports(self.folder, names, None, tables, operations, class_labels=self.classes)
            ranks = np.nan_to_num(np.nanmean(tables["dice"], axis=1))
        summary = self.summary(tables)
        write_text(json.dumps(summary, indent=4) + "\n", self.folder / "summary.json")
        for structure, values in summary.items():
            print(f"{structure:28}" + "  ".join(f"{name} {value}" for name, value in values.items()), flush=True)
        short = result_names(names)
        order = np.argsort(ranks, kind="stable")
        for kind, index in {"worst": order[0], "median": order[len(order) // 2]}.items():
            case = self.cases[index]
            title = f"{kind} case, {short[names[index]]}: Dice {ranks[index]:.3f}"
            save(overlay_figure(case["planes"], case["spacing"], title), self.folder / f"{kind}.png")

    def summary(self, tables: dict[str, np.ndarray]) -> dict[str, dict[str, float | int | None]]:
        """
        Means over the cases by structure, and over the structures; infinite distances are counted, not averaged.

        Args:
            tables: by measure ``(cases, structures)``.
        """
        columns = [(name, [index]) for index, name in enumerate(self.classes)]
        columns.append(("all structures", list(range(len(self.classes)))))
        result: dict[str, dict[str, float | int | None]] = {}
        for name, index in columns:
            row: dict[str, float | int | None] = {}
            for measure, values in tables.items():
                finite = values[:, index][np.isfinite(values[:, index])]
                row[measure] = round(float(finite.mean()), 4) if finite.size else None
            row["not_found"] = int(np.isinf(tables["hausdorff_95"][:, index]).sum())
            result[name] = row
        return result
