# Copyright (c) GVSL bundle contributors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""One self-contained HTML page about an evaluation: opens offline, readable on a phone."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import math
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import matplotlib.pyplot as plt
import monai
import numpy as np
import torch
from ignite.engine import Events
from matplotlib.figure import Figure
from monai.engines import Workflow
from PIL import Image

from .clustering import embedding, principal_colours
from .evaluation import Evaluation
from .networks import GVSL
from .visualisation import (
    as_volume,
    curves_figure,
    difference,
    embedding_figure,
    grid_pictures,
    mosaic,
    overlay,
    plane_pictures,
)

MEANINGS = {
    "ncc": (
        "Likeness of the images (local NCC)",
        "1: identical, 0: unrelated. Higher is better, but grey values can be matched with the wrong anatomy.",
    ),
    "dice": (
        "Overlap of the labelled structures (Dice)",
        "1: perfect, 0: none. Higher is better. No label was used to match, so this shows whether anatomy was matched.",
    ),
    "hd95": (
        "Distance of the structures' surfaces (HD95, mm)",
        "95 % of the surfaces lie closer than this. 0 is perfect, lower is better.",
    ),
    "restoration_error": (
        "Restoration error (mean squared)",
        "Corrupted and restored image against the clean one, intensities 0 to 1. 0 is perfect, lower is better.",
    ),
    "folded_percentage": (
        "Folded voxels (%)",
        "Where the map turns tissue inside out, which anatomy cannot do. 0 is best; several percent: do not trust it.",
    ),
    "log_jacobian_std": (
        "Unevenness of the map",
        "Standard deviation of the logarithm of the local volume change. 0: no tissue grows or shrinks more than other; "
        "lower is smoother.",
    ),
    "silhouette": (
        "Silhouette of the features",
        "-1 to 1. Near 1: each structure's features form a group of their own; 0 or below: the groups overlap.",
    ),
    "neighbour_purity": (
        "Neighbour purity of the features",
        "Share of a feature's nearest neighbours in OTHER subjects that belong to the same structure. 1 is perfect.",
    ),
}
CURVES = (
    ("matching", "smoothness", "restoration", "similarity"),
    ("ncc_before", "ncc_after"),
    ("dice_before", "dice_after"),
    ("folded_percentage",),
)
MOST_POINTS = 3000  # of the embedding: t-SNE takes minutes with more


def data_uri(picture: Image.Image | Figure) -> str:
    """
    Args:
        picture: a figure is closed.

    Returns:
        the picture as a ``data:`` address: PNG, or JPEG where that is less than half as large.
    """
    png, jpeg = io.BytesIO(), io.BytesIO()
    if isinstance(picture, Figure):
        picture.savefig(png, dpi=130)
        plt.close(picture)
    else:
        picture.save(png, "PNG", optimize=True)
        picture.save(jpeg, "JPEG", quality=90, subsampling=0)
    smaller = 0 < 2 * jpeg.tell() < png.tell()
    content = base64.b64encode((jpeg if smaller else png).getvalue()).decode()
    return f"data:image/{'jpeg' if smaller else 'png'};base64,{content}"


def image_tag(picture: Image.Image | Figure, text: str, attributes: str = "") -> str:
    """
    Args:
        picture: to be embedded.
        text: read out in place of the picture.
        attributes: further ones, as HTML.

    Returns:
        an ``<img>``.
    """
    return f'<img src="{data_uri(picture)}" alt="{escape(text)}" {attributes}>'


def figure_tag(picture: Image.Image | Figure, title: str, text: str = "") -> str:
    """
    Args:
        picture: to be embedded.
        title: what it shows.
        text: how to read it.

    Returns:
        a ``<figure>`` with its caption.
    """
    caption = f"<figcaption><b>{escape(title)}</b> {escape(text)}</figcaption>"
    return f"<figure>{image_tag(picture, title)}{caption}</figure>"


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], kind: str = "") -> str:
    """
    Args:
        head: of the columns.
        rows: numbers are rounded to three digits after the point, None and NaN become a dash.
        kind: CSS class.

    Returns:
        a table that scrolls by itself where the screen is narrow.
    """

    def text(value: Any) -> str:
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return "–"
        return escape(f"{value:.3f}" if isinstance(value, float) else str(value))

    cells = [[text(value) for value in row] for row in rows]
    body = "".join(
        f"<tr><th scope=row>{first}</th>{''.join(f'<td>{value}</td>' for value in rest)}</tr>" for first, *rest in cells
    )
    columns = "".join(f"<th scope=col>{escape(name)}</th>" for name in head)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="table">'
        f'<table class="{kind}"><thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def read_history(model: str | None) -> list[dict[str, float]]:
    """
    Args:
        model: weights, in the folder of the training run.

    Returns:
        the rows of ``history.csv`` beside them; none where there is no such file, or another program's.
    """
    path = Path(model or "").with_name("history.csv") if model else None
    if path is None or not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    except (ValueError, TypeError, AttributeError):
        return []
    return [row for row in rows if "epoch" in row]


def provenance(model: str | None, settings: Mapping[str, Any], device: str) -> list[tuple[str, str]]:
    """
    What was run, with what.

    Args:
        model: weights; None where none were loaded.
        settings: values of the configuration.
        device: that was computed on.

    Returns:
        names and values.
    """
    rows = [("model", model or "none: the network is untrained")]
    if model:
        rows.append(("SHA-256 of the model", hashlib.sha256(Path(model).read_bytes()).hexdigest()))
    rows += [(name, str(value)) for name, value in settings.items()]
    description = Path(__file__).parent.parent / "configs" / "metadata.json"
    if description.is_file():
        rows.append(("bundle version", json.loads(description.read_text(encoding="utf-8"))["version"]))
    versions = {"Python": platform.python_version(), "torch": torch.__version__, "MONAI": monai.__version__}
    rows += [*versions.items(), ("NumPy", np.__version__), ("device", device), ("system", platform.platform())]
    return rows


def short_names(pairs: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The scans' paths without the folder that all have in common."""
    names = sorted({row[key] for row in pairs for key in ("fixed", "moving")})
    folders = {os.path.dirname(name) for name in names}
    common = os.path.commonpath(folders) if all(map(os.path.isabs, names)) else ""
    return {name: os.path.relpath(name, common) if common else name for name in names}


def ranking(pairs: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """
    Args:
        pairs: measures of each.

    Returns:
        number of the best, the median and the worst pair by Dice (NCC without labels); fewer where there are fewer.
    """
    key = "dice_after" if "dice_after" in pairs[0] else "ncc_after"
    order = sorted(range(len(pairs)), key=lambda n: np.nan_to_num(pairs[n][key], nan=-np.inf), reverse=True)
    chosen = {"Best": order[0], "Worst": order[-1], "Median": order[len(order) // 2]}
    return {name: chosen[name] for name in ("Best", "Median", "Worst")[:: 2 if len(order) < 3 else 1][: len(order)]}


def measure_rows(evaluation: Evaluation) -> list[list[Any]]:
    """
    Args:
        evaluation: completed.

    Returns:
        for each measure found: name, before, after, meaning.
    """
    found = {**evaluation.summary["measures"], **evaluation.summary.get("clustering", {})}
    corrupted = [np.square(as_volume(v["corrupted"]) - as_volume(v["moving"])).mean() for v in evaluation.volumes]
    found["restoration_error_before"] = float(np.mean(corrupted))
    rows = []
    for name, (label, meaning) in MEANINGS.items():
        after = found.get(f"{name}_after", found.get(name))
        if name == "neighbour_purity":
            meaning += f" Chance would be {1 / len(np.unique(np.concatenate(evaluation.feature_codes or [[0]]))):.2f}."
        if after is not None:
            rows.append([label, found.get(f"{name}_before"), after, meaning])
    return rows


def pair_rows(pairs: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """
    Args:
        pairs: measures of each.

    Returns:
        head and rows of the table of all pairs.
    """
    names, measures = short_names(pairs), [name for name in Evaluation.measures if name in pairs[0]]
    rows = [[f"{names[row['moving']]} → {names[row['fixed']]}", *(row[name] for name in measures)] for row in pairs]
    return ["moving → fixed", *(name.replace("_", " ") for name in measures)], rows


def headline(evaluation: Evaluation) -> str:
    """One sentence and a tile for each of the chief measures."""
    pairs, means = evaluation.pairs, evaluation.summary["measures"]
    key, label = ("dice", "overlap of the labels (Dice)") if "dice_after" in means else ("ncc", "likeness (NCC)")
    better = sum(row[f"{key}_after"] > row[f"{key}_before"] for row in pairs)
    scans = len({row[end] for row in pairs for end in ("fixed", "moving")})
    tiles = {
        name.upper()
        if name == "ncc"
        else name.capitalize(): f"{means[f'{name}_before']:.3f} → {means[f'{name}_after']:.3f}"
        for name in ("dice", "ncc")
        if f"{name}_after" in means
    }
    tiles["Folded voxels"] = f"{means['folded_percentage']:.2f} %"
    shown = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in tiles.items())
    return (
        f"<p>{len(pairs)} pairs of {scans} scans were matched. The {label} is higher after the match in {better} of "
        f'{len(pairs)} pairs.</p><dl class="tiles">{shown}</dl>'
    )


def comparison(volume: Mapping[str, np.ndarray], spacing: Sequence[float], name: str) -> str:
    """
    Args:
        volume: images of a pair.
        spacing: voxel size in millimetres.
        name: of the pair.

    Returns:
        the three planes, each with a slider from the moving to the warped image, overlaid on the fixed one.
    """
    before, after = (
        plane_pictures(overlay(volume["fixed"], volume[key]), spacing, 360) for key in ("moving", "warped")
    )
    stacks = "".join(
        f'<figure class="stack" style="flex-grow:{picture.width}"><div>'
        f"{image_tag(picture, f'{name}, {title}, moving over fixed', 'draggable=false')}"
        f"{image_tag(after[title], f'{name}, {title}, warped over fixed', 'class=after draggable=false')}"
        f"<i></i></div><figcaption>{title}</figcaption></figure>"
        for title, picture in before.items()
    )
    return (
        f'<div class="compare"><div class="planes">{stacks}</div><label><span>before</span><input type="range" min="0" '
        f'max="100" value="50" aria-label="{escape(name)}: before (0) or after the match (100)"><span>after</span></label>'
        "</div>"
    )


def pair_section(name: str, row: Mapping[str, Any], kept: Mapping[str, np.ndarray], spacing: Sequence[float]) -> str:
    """
    Args:
        name: rank of the pair.
        row: its measures.
        kept: its volumes.
        spacing: voxel size in millimetres.

    Returns:
        everything about one pair.
    """
    volume = {key: as_volume(image) for key, image in kept.items() if key != "displacement"}
    changes = {"before": difference(volume["fixed"], volume["moving"])}
    changes["after"] = difference(volume["fixed"], volume["warped"])
    strips = {
        "Fixed": (volume["fixed"], "the image to be matched"),
        "Moving": (volume["moving"], "another subject"),
        "Warped": (volume["warped"], "the moving image after the match: it should look like the fixed one"),
        "Difference before": (changes["before"], "moving minus fixed; red: brighter, blue: darker, white: equal"),
        "Difference after": (changes["after"], "warped minus fixed; the paler, the better the match"),
        "Displacement": (
            None,
            "where a regular grid of the fixed image lies in the moving image; lines that cross: folding",
        ),
        "Clean": (volume["moving"], "the moving image"),
        "Corrupted": (volume["corrupted"], "what the network was given"),
        "Restored": (volume["restored"], "what it made of that; it should look like the clean image"),
    }
    figures = []
    for title, (image, text) in strips.items():
        pictures = grid_pictures(kept["displacement"], spacing) if image is None else plane_pictures(image, spacing)
        figures.append(figure_tag(mosaic([list(pictures.values())]), title, text))
    values = [
        f"{label} {row[f'{key}_before']:.3f} → {row[f'{key}_after']:.3f}"
        for key, label in (("dice", "Dice"), ("ncc", "NCC"))
        if f"{key}_after" in row
    ]
    values.append(f"{row['folded_percentage']:.2f} % folded")
    return (
        f"<article><h3>{escape(name)} pair</h3><p><b>{escape('; '.join(values))}</b><br>moving "
        f"<code>{escape(row['moving'])}</code>, fixed <code>{escape(row['fixed'])}</code></p>"
        f'{comparison(volume, spacing, f"{name} pair")}<div class="strips">{"".join(figures)}</div></article>'
    )


def coloured_subjects(
    network: GVSL, images: Mapping[str, torch.Tensor], spacing: Sequence[float], device: Any
) -> dict[str, Image.Image]:
    """
    Colour the middle planes of several subjects by the principal components of their local features.

    Args:
        network: gives the features.
        images: prepared scan of each subject, ``(1, D, H, W)``.
        spacing: voxel size in millimetres.
        device: to compute on.

    Returns:
        for the name of each plane a picture: the subjects side by side, above their images, below their colours.
    """
    network.eval()
    features, shown = [], []
    for image in images.values():
        shown.append(as_volume(image[0].cpu().numpy()))
        planes = np.zeros(shown[-1].shape, dtype=bool)
        for axis, size in enumerate(planes.shape):
            planes.swapaxes(0, axis)[size // 2] = True
        with torch.no_grad():
            local = network.backbone(image[None].to(device, torch.float32))[1][0].cpu().float().numpy()
        features.append(local.reshape(len(local), *planes.shape)[:, planes])
    columns = []
    for image_, colours in zip(shown, principal_colours(features), strict=True):
        coloured = np.zeros((*image_.shape, 3), dtype=np.float32)
        coloured[planes] = colours
        columns.append((plane_pictures(image_, spacing), plane_pictures(coloured, spacing)))
    rows = {
        name: list(zip(*((above[name], below[name]) for above, below in columns), strict=True))
        for name in columns[0][0]
    }
    return {name: mosaic(list(map(list, both))) for name, both in rows.items()}


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
        path.write_text(self.page(engine.state.device), encoding="utf-8")
        print(f"report: {path} ({path.stat().st_size / 1e6:.1f} MB)", flush=True)

    def page(self, device: Any) -> str:
        """The whole page, complete with its pictures."""
        evaluation, structures = self.evaluation, self.evaluation.summary["structures"]
        names = {row["code"]: row["structure"] for row in structures}
        head, rows = pair_rows(evaluation.pairs)
        per_structure = [[row["structure"], *map(row.get, Evaluation.structure_measures)] for row in structures]
        columns = ["structure", "Dice before", "Dice after", "HD95 before, mm", "HD95 after, mm"]
        sections = {
            "title": escape(self.title),
            "date": f"{datetime.now().astimezone():%d %B %Y, %H:%M %Z}",
            "headline": headline(evaluation),
            "measures": table(["measure", "before", "after", "how to read it"], measure_rows(evaluation), "explained"),
            "structures": f"<h3>By structure</h3>{table(columns, per_structure)}" if names else "",
            "all_pairs": table(head, rows),
            "orientation": self._orientation(),
            "pairs": self._pairs(),
            "colours": self._colours(device),
            "embedding": self._embedding(),
            "curves": self._curves(),
            "provenance": table(["", "value"], provenance(self.model, self.settings, str(device)), "plain"),
        }
        return Template(self.template.read_text(encoding="utf-8")).substitute(sections)

    def _orientation(self) -> str:
        if self.settings.get("orientation", "RAS") != "RAS":
            return "The axes are those of the configuration, not the radiological ones."
        return "The patient's right is on the picture's left; in sagittal planes anterior is on the left."

    def _pairs(self) -> str:
        rows, names = self.evaluation.pairs, short_names(self.evaluation.pairs)
        chosen = ranking(rows)
        return "".join(
            pair_section(
                rank if len(rows) > 1 else "The only",
                {**rows[n], "fixed": names[rows[n]["fixed"]], "moving": names[rows[n]["moving"]]},
                self.evaluation.volumes[n],
                self.spacing,
            )
            for rank, n in chosen.items()
        )

    def _subject_images(self) -> dict[str, torch.Tensor]:
        evaluation = self.evaluation
        if evaluation.scans is not None:
            first = {subject: n for n, subject in reversed(list(enumerate(evaluation.subjects)))}
            chosen = sorted(first.items(), key=lambda item: item[1])[: self.subjects]
            return {subject: torch.as_tensor(evaluation.scans[n]["image"]) for subject, n in chosen}
        names = short_names(evaluation.pairs)
        fixed = {names[row["fixed"]]: v["fixed"] for row, v in zip(evaluation.pairs, evaluation.volumes, strict=True)}
        return {name: torch.from_numpy(image)[None] for name, image in list(fixed.items())[: self.subjects]}

    def _colours(self, device: Any) -> str:
        images = self._subject_images()
        pictures = coloured_subjects(self.network, images, self.spacing, device)
        text = f"from left to right: {', '.join(images)}"
        return "".join(figure_tag(picture, name.capitalize(), text) for name, picture in pictures.items())

    def _embedding(self) -> str:
        evaluation = self.evaluation
        total = sum(map(len, evaluation.feature_codes))
        if total < 10:
            return "<p>Not drawn: the embedding needs scans with labels.</p>"
        step = math.ceil(total / MOST_POINTS)
        points = embedding([part[::step] for part in evaluation.features], evaluation.seed)
        codes = np.concatenate([part[::step] for part in evaluation.feature_codes])
        figure = embedding_figure(points, codes, dict(zip(evaluation.codes, evaluation.names, strict=True)))
        figure.savefig(self.folder / "embedding.png", dpi=150)
        return figure_tag(figure, "Embedding", f"t-SNE of {len(points)} features f^l, coloured by structure")

    def _curves(self) -> str:
        history = read_history(self.model)
        figures = []
        for names in CURVES:
            rows = [{k: row[k] for k in ("epoch", *names) if k in row} for row in history]
            if any(len(row) > 1 for row in rows):
                figures.append(figure_tag(curves_figure(rows), f"Course of {names[-1].replace('_', ' ')}"))
        return "".join(figures) or "<p>None: there is no history.csv beside the model.</p>"
