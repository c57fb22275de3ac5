# SPDX-License-Identifier: Apache-2.0
"""One self-contained HTML page about an evaluation: opens offline, readable on a phone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Events
from monai.engines import Workflow

from ...data.cache import prepared
from ...files import write_text
from ...networks.gvsl import GVSL
from ...plots import curve_groups, curves_figure
from ..clustering import embedding
from ..evaluation import Evaluation
from ..structures import shown_groups
from .html import figure_tag, folded, image_tag, table, whole_page
from .pair_volumes import pair_volumes
from .pictures import coloured_subjects, pair_section
from .planes import embedding_figure
from .structure_tables import structure_tables
from .tables import headline, measure_rows, named_pairs, pair_rows, provenance, ranking, read_history, short_names

MOST_POINTS = 2000  # of the embedding: t-SNE takes minutes with more


class Report:
    """
    Handler that writes ``report.html``, and ``embedding.png`` where there are labels, when an evaluation ends.

    Args:
        evaluation: the handler that collects the measures; registered before this one.
        network: gives the features that are coloured.
        output_dir: where to.
        model: weights, in the folder of the training run; None for an untrained network.
        settings: values of the configuration to be listed; ``pixdim`` gives the pictures' proportions.
        title: of the page.
        subjects: how many are coloured side by side.
    """

    template = Path(__file__).with_name("report_template.html")

    def __init__(
        self,
        evaluation: Evaluation,
        network: GVSL,
        output_dir: str,
        model: str | None = None,
        settings: Mapping[str, Any] | None = None,
        title: str = "GVSL evaluation",
        subjects: int = 4,
    ) -> None:
        self.evaluation, self.network, self.folder, self.model = evaluation, network, Path(output_dir), model
        self.settings, self.title, self.subjects = dict(settings or {}), title, subjects
        self.spacing = (list(self.settings.get("pixdim", [])) + [1.0, 1.0, 1.0])[:3]

    def attach(self, engine: Workflow) -> None:
        """Register with the evaluator, after the evaluation."""
        engine.add_event_handler(Events.COMPLETED, self.completed)

    def completed(self, engine: Workflow) -> None:
        """Write the page."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "report.html"
        write_text(self.page(engine), path)
        print(f"report: {path} ({path.stat().st_size / 1e6:.1f} MB)", flush=True)

    def page(self, engine: Workflow) -> str:
        """The whole page, complete with its pictures."""
        evaluation, device = self.evaluation, engine.state.device
        pairs = named_pairs(evaluation.pairs)
        run = provenance(self.model, self.settings, str(device))
        sections = {
            "headline": headline(evaluation),
            "measures": table(["measure", "before \u2192 after"], measure_rows(evaluation), "Measures"),
            "structures": structure_tables(evaluation.summary["structures"]),
            "all_pairs": table(*pair_rows(pairs), "All pairs", "stacked"),
            "left_out": self._left_out(),
            "ranked": "label overlap (Dice)" if "dice" in evaluation.summary["gains"] else "likeness (NCC)",
            "orientation": self._orientation(),
            "pairs": self._pairs(engine, pairs),
            "colours": self._colours(device),
            "embedding": self._embedding(),
            "curves": self._curves(),
            "provenance": table(["setting", "value"], run, "What was run", "wraps"),
        }
        return whole_page(self.template, self.title, sections)

    def _left_out(self) -> str:
        seen = self.evaluation.summary["trained_on"]
        if not seen["scans"]:
            return ""
        names = ", ".join(short_names(seen["scans"]).values())
        title = "Left out, because the model was trained on them" if seen["left_out"] else "Scans it was trained on"
        return folded(f"{title}: {len(seen['scans'])}", f"<p>{escape(names)}</p>")

    def _orientation(self) -> str:
        if self.settings.get("orientation", "RAS") != "RAS":
            return "The axes are those of the configuration, not the radiological ones."
        return "The patient's right is on the picture's left; in sagittal planes anterior is on the left."

    def _pairs(self, engine: Any, pairs: Sequence[Mapping[str, Any]]) -> str:
        groups = shown_groups(self.evaluation.structures)[1]
        return "".join(
            pair_section(name, pairs[n], pair_volumes(engine, n, groups), self.spacing)
            for name, n in ranking(pairs).items()
        )

    def _subject_images(self) -> dict[str, torch.Tensor]:
        """The prepared scans of some persons, by short name."""
        dataset = self.evaluation.dataset
        names = short_names(dataset.names)
        first = np.unique(dataset.subjects, return_index=True)[1][: self.subjects].tolist()
        return {names[dataset.names[n]]: torch.as_tensor(prepared(dataset.scans, n)["image"]) for n in first}

    def _colours(self, device: Any) -> str:
        images = self._subject_images()
        pictures = coloured_subjects(self.network, images, self.spacing, device)
        text = f"from left to right: {', '.join(images)}"
        return "".join(figure_tag({"": picture}, name.capitalize(), text) for name, picture in pictures.items())

    def _embedding(self) -> str:
        evaluation = self.evaluation
        total = sum(map(len, evaluation.feature_codes))
        if total < 10 or not evaluation.groups:
            return "<p>Not drawn: the embedding needs scans with labels.</p>"
        step = math.ceil(total / MOST_POINTS)
        points = embedding([part[::step] for part in evaluation.features], evaluation.seed)
        codes = np.concatenate([part[::step] for part in evaluation.feature_codes])
        names, groups = shown_groups(self.evaluation.structures)
        numbers = {tuple(own): n for n, own in enumerate(evaluation.groups, start=1)}
        shown = {numbers[(code,)]: n for n, own in enumerate(groups, 1) for code in own if (code,) in numbers}
        if names == evaluation.names:
            shown = {n: n for n in numbers.values()}
        colours = np.array([shown.get(int(code), 0) for code in codes])
        titles = {0: "others", **dict(enumerate(names, start=1))}
        figure = embedding_figure(points, colours, titles)
        figure.savefig(self.folder / "embedding.png", dpi=150)
        return figure_tag({"": figure}, "Embedding", f"t-SNE of {len(points)} local features, coloured by structure")

    def _curves(self) -> str:
        history = read_history(self.model)
        figures = []
        for names in curve_groups(history).values():
            rows = [{k: row[k] for k in ("epoch", *names) if k in row} for row in history]
            text = f"Curves over the epochs: {', '.join(names)}".replace("_", " ")
            figures.append(image_tag(curves_figure(rows), text))
        return "".join(figures) or "<p>None: there is no history.csv beside the model.</p>"
