# SPDX-License-Identifier: Apache-2.0
"""Scores of a segmentation: one row a case and structure, a summary, and pictures of the median and the worst case."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Events
from matplotlib.figure import Figure
from monai.engines import Workflow
from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice

from ..plots import subplots

MEASURES = ("dice", "hausdorff_95", "surface_dice")


def case_scores(
    prediction: torch.Tensor, label: torch.Tensor, spacing: Sequence[float], tolerance: float
) -> dict[str, list[float]]:
    """
    Compare one prediction with its label.

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
    both = (torch.as_tensor(prediction)[None].float(), torch.as_tensor(label)[None].float())
    there, found = both[1][0, 1:].flatten(1).any(1), both[0][0, 1:].flatten(1).any(1)
    scores = {
        "dice": compute_dice(*both, include_background=False)[0],
        "hausdorff_95": compute_hausdorff_distance(*both, percentile=95, spacing=spacing)[0],
        "surface_dice": compute_surface_dice(*both, [tolerance] * len(there), spacing=spacing)[0],
    }
    lost = {"dice": 0.0, "hausdorff_95": math.inf, "surface_dice": 0.0}
    return {
        name: torch.where(there, torch.where(found, values.cpu(), lost[name]), math.nan).tolist()
        for name, values in scores.items()
    }


def overlay_figure(
    image: np.ndarray, prediction: np.ndarray, label: np.ndarray, spacing: Sequence[float], title: str
) -> Figure:
    """
    Three planes through the middle of the label: the image, with the outlines of label (green) and prediction (red).

    Args:
        image: ``(D, H, W)``, axes towards the right, anterior, superior.
        prediction: structure numbers of the same shape.
        label: structure numbers of the same shape.
        spacing: voxel size in millimetres.
        title: of the figure.
    """
    figure, (axes,) = subplots(1, 3, (10, 3.8))
    where = np.argwhere(label if label.any() else np.ones_like(label))
    centre = where[np.abs(where - where.mean(0)).sum(1).argmin()]
    for axis, place in enumerate(axes):
        cut = (np.take(volume, centre[axis], axis).T for volume in (image, prediction, label))
        grey, predicted, true = cut
        across, up = (size for index, size in enumerate(spacing) if index != axis)
        place.imshow(grey, cmap="gray", origin="lower", vmin=0, vmax=1, aspect=up / across)
        for number in np.unique(label[label > 0]):
            for outline, colour in ((true, "lime"), (predicted, "red")):
                if (outline == number).any():
                    place.contour(outline == number, levels=[0.5], colors=colour, linewidths=1)
        place.set_title(("sagittal", "coronal", "axial")[axis], fontsize=9)
        place.axis("off")
    figure.suptitle(f"{title}   (green: label, red: prediction)", fontsize=10)
    return figure


class SegmentationScores:
    """
    Handler of an evaluator that writes ``scores.csv``, ``summary.json``, ``median.png`` and ``worst.png``.

    Args:
        folder: where to.
        classes: names of the structures.
        spacing: voxel size in millimetres.
        tolerance: of the surface Dice, millimetres.
    """

    def __init__(self, folder: str, classes: Sequence[str], spacing: Sequence[float], tolerance: float = 2.0) -> None:
        self.folder, self.classes, self.spacing, self.tolerance = Path(folder), list(classes), spacing, tolerance
        self.cases: list[dict[str, Any]] = []

    def attach(self, engine: Workflow) -> None:
        """Register with the evaluator."""
        engine.add_event_handler(Events.STARTED, lambda _: self.cases.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.add)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def add(self, engine: Workflow) -> None:
        """Score the cases of a batch; volumes are kept as bytes for the pictures."""
        for data in engine.state.output:
            numbers = {key: data[key].argmax(0).cpu().numpy().astype(np.uint8) for key in ("pred", "label")}
            image = (data["image"][0].float().clamp(0, 1) * 255).byte().cpu().numpy()
            scores = case_scores(data["pred"], data["label"], self.spacing, self.tolerance)
            name = Path(str(data["image"].meta.get("filename_or_obj", len(self.cases)))).name
            self.cases.append({"name": name, "scores": scores, "image": image, **numbers})

    def write(self, engine: Workflow) -> None:
        """Write everything and print the summary."""
        with (self.folder / "scores.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["case", "structure", *MEASURES])
            for case in self.cases:
                for index, structure in enumerate(self.classes):
                    writer.writerow([case["name"], structure, *(case["scores"][m][index] for m in MEASURES)])
        summary = self.summary()
        (self.folder / "summary.json").write_text(json.dumps(summary, indent=4) + "\n", encoding="utf-8")
        for structure, values in summary.items():
            print(f"{structure:28}" + "  ".join(f"{name} {value}" for name, value in values.items()), flush=True)
        ranked = sorted(self.cases, key=lambda case: np.nan_to_num(np.nanmean(case["scores"]["dice"])))
        for name, case in {"worst": ranked[0], "median": ranked[len(ranked) // 2]}.items():
            title = f"{name} case, {case['name']}: Dice {np.nanmean(case['scores']['dice']):.3f}"
            figure = overlay_figure(case["image"] / 255, case["pred"], case["label"], self.spacing, title)
            figure.savefig(self.folder / f"{name}.png", dpi=110)

    def summary(self) -> dict[str, dict[str, float | int | None]]:
        """Means over the cases by structure, and over the structures; infinite distances are counted, not averaged."""
        table = {m: np.array([case["scores"][m] for case in self.cases], float) for m in MEASURES}
        columns = [(name, [index]) for index, name in enumerate(self.classes)]
        columns.append(("all structures", list(range(len(self.classes)))))
        result: dict[str, dict[str, float | int | None]] = {}
        for name, index in columns:
            row: dict[str, float | int | None] = {}
            for measure, values in table.items():
                finite = values[:, index][np.isfinite(values[:, index])]
                row[measure] = round(float(finite.mean()), 4) if finite.size else None
            row["not_found"] = int(np.isinf(table["hausdorff_95"][:, index]).sum())
            result[name] = row
        return result
