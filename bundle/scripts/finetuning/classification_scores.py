# SPDX-License-Identifier: Apache-2.0
"""Scores of a classification: by scan and by subject, as tables, a summary and pictures."""

from __future__ import annotations

import csv
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Events
from matplotlib.figure import Figure
from monai.engines import Workflow
from monai.metrics import ROCAUCMetric, compute_roc_auc

from ..plots import PLANES, plane, subplots


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str], classes: Sequence[str]) -> None:
    """
    Write a CSV table of predictions.

    Args:
        path: of the file.
        rows: dictionaries with ``probabilities``, the ``columns`` and, where known, ``label`` (the true class).
        columns: to write first.
        classes: names.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        known = ["true"] if rows and "label" in rows[0] else []
        writer.writerow([*columns, *known, "predicted", *(f"probability of {name}" for name in classes)])
        for row in rows:
            true = [classes[row["label"]]] if known else []
            chances = [f"{value:.4f}" for value in row["probabilities"]]
            writer.writerow(
                [*(row[column] for column in columns), *true, classes[row["probabilities"].argmax()], *chances]
            )


def confusion_figure(tables: Mapping[str, Mapping[str, Mapping[str, int]]]) -> Figure:
    """
    Counts of true and predicted classes, shaded by the share of the true class.

    Args:
        tables: by title, for each true class the counts of the predicted ones.
    """
    classes = list(next(iter(tables.values())))
    size = 1.6 + 0.7 * len(classes)
    figure, axes = subplots(1, len(tables), (size * len(tables), size))
    for place, (title, table) in zip(axes[0], tables.items(), strict=True):
        counts = np.array([list(row.values()) for row in table.values()])
        shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        place.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for row, column in np.ndindex(counts.shape):
            colour = "white" if shares[row, column] > 0.5 else "black"
            place.text(column, row, counts[row, column], ha="center", va="center", color=colour)
        place.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
        place.set_yticks(range(len(classes)), classes)
        place.set(xlabel="predicted", ylabel="true", title=title)
    return figure


def planes_figure(planes: Sequence[np.ndarray], spacing: Sequence[float], title: str) -> Figure:
    """
    The three middle planes of what the network saw.

    Args:
        planes: of :func:`~scripts.plots.plane`, bytes.
        spacing: voxel size in millimetres.
        title: of the figure.
    """
    figure, (axes,) = subplots(1, 3, (10, 3.8))
    for axis, (place, picture) in enumerate(zip(axes, planes, strict=True)):
        across, up = (size for index, size in enumerate(spacing) if index != axis)
        place.imshow(picture, cmap="gray", vmin=0, vmax=255, aspect=up / across)
        place.set_title(PLANES[axis], fontsize=9)
        place.axis("off")
    figure.suptitle(title, fontsize=10)
    return figure


class Predictions:
    """
    Handler of an evaluator that writes ``predictions.csv``: a row a scan, with its class and all probabilities.

    Args:
        folder: where to.
        classes: names.
    """

    columns = ["image"]
    file_name = "predictions.csv"

    def __init__(self, folder: str, classes: Sequence[str]) -> None:
        self.folder, self.classes = Path(folder), list(classes)
        self.cases: list[dict[str, Any]] = []

    def attach(self, engine: Workflow) -> None:
        """Register with the evaluator."""
        engine.add_event_handler(Events.STARTED, lambda _: self.cases.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.add)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def case(self, batch: Mapping[str, Any], output: Mapping[str, Any]) -> dict[str, Any]:
        """What to remember of one case."""
        image = batch["image"].meta.get("filename_or_obj", len(self.cases))
        return {"image": str(image), "probabilities": output["pred"].cpu().numpy()}

    def add(self, engine: Workflow) -> None:
        """Remember the cases of a batch."""
        pairs = zip(engine.state.batch, engine.state.output, strict=True)
        self.cases += [self.case(batch, output) for batch, output in pairs]

    def write(self, engine: Workflow) -> None:
        """Write the table."""
        write_rows(self.folder / self.file_name, self.cases, self.columns, self.classes)
        print(f"wrote {self.folder / self.file_name}", flush=True)


class ClassificationScores(Predictions):
    """
    Handler of an evaluator that writes ``scores.csv`` (a row a scan), ``subjects.csv``, ``summary.json``,
    ``confusion.png``, ``median.png`` and ``worst.png`` (by the probability of the true class).

    Args:
        folder: where to.
        classes: names.
        spacing: voxel size in millimetres.
    """

    columns = ["image", "subject"]
    file_name = "scores.csv"

    def __init__(self, folder: str, classes: Sequence[str], spacing: Sequence[float]) -> None:
        super().__init__(folder, classes)
        self.spacing = spacing

    def case(self, batch: Mapping[str, Any], output: Mapping[str, Any]) -> dict[str, Any]:
        """Also the true class, and of the image three planes, as bytes."""
        image = (output["image"][0].float().clamp(0, 1) * 255).byte().cpu().numpy()
        known = {"subject": batch["subject"], "label": int(output["label"].argmax())}
        return {**super().case(batch, output), **known, "planes": [plane(image, axis).copy() for axis in range(3)]}

    def write(self, engine: Workflow) -> None:
        """Write everything and print the summary."""
        super().write(engine)
        subjects = by_subject(self.cases)
        write_rows(self.folder / "subjects.csv", subjects, ["subject", "scans"], self.classes)
        summary = {}
        for name, rows in {"scans": self.cases, "subjects": subjects}.items():
            probabilities, labels = (np.array([row[key] for row in rows]) for key in ("probabilities", "label"))
            summary[name] = scores(probabilities, labels, self.classes)
            print(f"{len(rows)} {name}: AUC {summary[name]['auc']}, accuracy {summary[name]['accuracy']}", flush=True)
        (self.folder / "summary.json").write_text(json.dumps(summary, indent=4) + "\n", encoding="utf-8")
        tables = {f"{table['number']} {name}": table["confusion"] for name, table in summary.items()}
        self.save(confusion_figure(tables), "confusion")
        ranked = sorted(self.cases, key=lambda case: case["probabilities"][case["label"]])
        for name, case in {"worst": ranked[0], "median": ranked[len(ranked) // 2]}.items():
            true, found = case["label"], case["probabilities"].argmax()
            title = (
                f"{name} case, {Path(case['image']).name}: {self.classes[true]} with probability "
                f"{case['probabilities'][true]:.2f}, predicted {self.classes[found]}"
            )
            self.save(planes_figure(case["planes"], self.spacing, title), name)

    def save(self, figure: Figure, name: str) -> None:
        """Write a figure."""
        figure.savefig(self.folder / f"{name}.png", dpi=110)


def class_aucs(probabilities: torch.Tensor, labels: torch.Tensor) -> list[float]:
    """
    Area under the ROC curve of each class against all others.

    Args:
        probabilities: ``(N, C)``.
        labels: one-hot ``(N, C)``.

    Returns:
        one number a class, NaN for a class that all or none of the cases show.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="y values can not be all")
        values = compute_roc_auc(probabilities.detach().double().cpu(), labels.detach().cpu().int(), average="none")
    return [float(value) for value in np.asarray(values)]


def mean_auc(probabilities: torch.Tensor, labels: torch.Tensor) -> float:
    """The mean of :func:`class_aucs` over the classes that have one (macro average); NaN where none has."""
    values = [value for value in class_aucs(probabilities, labels) if not np.isnan(value)]
    return float(np.mean(values)) if values else float("nan")


class MeanAUC(ROCAUCMetric):
    """Cumulative :func:`mean_auc`: classes that a small validation part lacks are left out of the mean."""

    def aggregate(self, average: Any = None) -> float:
        """The mean over everything seen since the last reset."""
        probabilities, labels = self.get_buffer()
        return mean_auc(probabilities, labels)


def scores(probabilities: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """
    Args:
        probabilities: ``(N, C)``.
        labels: ``(N,)`` numbers of the classes.
        classes: C names.

    Returns:
        ``number``, ``auc`` (macro), ``auc_by_class``, ``accuracy`` and ``confusion`` (for each true class the counts of
        the predicted ones); an AUC that does not exist is None.
    """
    hot = torch.nn.functional.one_hot(torch.as_tensor(labels), len(classes))
    both = (torch.as_tensor(probabilities), hot)
    mean, *by_class = (None if np.isnan(v) else round(v, 4) for v in (mean_auc(*both), *class_aucs(*both)))
    confusion = np.zeros((len(classes), len(classes)), int)
    np.add.at(confusion, (labels, probabilities.argmax(1)), 1)
    return {
        "number": len(labels),
        "auc": mean,
        "auc_by_class": dict(zip(classes, by_class, strict=True)),
        "accuracy": round(float(confusion.trace() / confusion.sum()), 4),
        "confusion": {
            name: dict(zip(classes, row, strict=True)) for name, row in zip(classes, confusion.tolist(), strict=True)
        },
    }


def by_subject(cases: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """
    Average the probabilities over the scans of each subject.

    Args:
        cases: dictionaries with ``subject``, ``label`` and ``probabilities``.

    Returns:
        the same for each subject, and ``scans``, their number.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for case in cases:
        groups.setdefault(case["subject"], []).append(case)
    return [
        {
            "subject": subject,
            "scans": len(group),
            "label": group[0]["label"],
            "probabilities": np.mean([case["probabilities"] for case in group], axis=0),
        }
        for subject, group in groups.items()
    ]
