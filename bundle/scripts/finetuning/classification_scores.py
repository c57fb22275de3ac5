# SPDX-License-Identifier: Apache-2.0
"""Scores of a classification: by scan and by subject, as tables, a summary and pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Events
from monai.engines import Workflow

from ..data.tables import write_own
from ..files import write_text
from ..plots import plane
from .classification_metrics import by_subject, scores
from .figures import confusion_figure, planes_figure, save


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str], classes: Sequence[str]) -> None:
    """
    Write a CSV table of predictions, with names and subjects, which MONAI's ``ClassificationSaver`` does not write.

    Args:
        path: of the file.
        rows: dictionaries with ``probabilities``, the ``columns`` and, where known, ``label`` (the true class).
        columns: to write first.
        classes: names.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    table = []
    for row in rows:
        known = {"true": classes[row["label"]]} if "label" in row else {}
        chances = {f"probability of {name}": f"{p:.4f}" for name, p in zip(classes, row["probabilities"], strict=True)}
        told = {column: row[column] for column in columns} | known
        table.append(told | {"predicted": classes[row["probabilities"].argmax()]} | chances)
    write_own(table, path)


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
        write_text(json.dumps(summary, indent=4) + "\n", self.folder / "summary.json")
        tables = {f"{table['number']} {name}": table["confusion"] for name, table in summary.items()}
        save(confusion_figure(tables), self.folder / "confusion.png")
        ranked = sorted(self.cases, key=lambda case: case["probabilities"][case["label"]])
        for name, case in {"worst": ranked[0], "median": ranked[len(ranked) // 2]}.items():
            true, found = case["label"], case["probabilities"].argmax()
            title = (
                f"{name} case, {Path(case['image']).name}: {self.classes[true]} with probability "
                f"{case['probabilities'][true]:.2f}, predicted {self.classes[found]}"
            )
            save(planes_figure(case["planes"], self.spacing, title), self.folder / f"{name}.png")
