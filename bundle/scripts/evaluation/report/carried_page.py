# SPDX-License-Identifier: Apache-2.0
"""One self-contained HTML page about label maps that were carried over: the most doubtful first, with pictures."""

from __future__ import annotations

import colorsys
import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Events
from monai.engines import Workflow
from monai.transforms import Orientation
from PIL import Image

from ...data.reading import LoadScan
from ...data.result_names import read_record
from ...files import write_text
from ...matching.label_propagation import CORRECTED
from ...matching.match_table import read_rows
from ...matching.vote_labels import CONFIDENCE, TABLE
from ...spatial.smoothing import gaussian
from .html import figure_tag, number, whole_page
from .outlines import edges, label_centre
from .planes import plane_pictures

DOUBT = np.array([255.0, 90.0, 20.0])
FIRST = 3
"""How many results a person should correct before the next round."""


class CarriedPage:
    """
    Handler that writes ``carried.html`` into the folder of label maps when an evaluator has carried the last, and says
    which to correct first.

    Args:
        output_dir: folder of the results, see :class:`~scripts.matching.VoteLabels`.
        pixels: length of a picture's longest side.
    """

    template = Path(__file__).with_name("carried_template.html")

    def __init__(self, output_dir: str, pixels: int = 340) -> None:
        self.folder, self.pixels = Path(output_dir), pixels

    def attach(self, engine: Workflow) -> None:
        """Register with the evaluator."""
        engine.add_event_handler(Events.COMPLETED, self.completed)

    def completed(self, engine: Workflow) -> None:
        """Write the page."""
        path = self.folder / "carried.html"
        write_text(self.page(), path)
        first = [row["result"] for row in self._rows() if row["look_at"] != "corrected"][:FIRST]
        print(f"page: {path} ({path.stat().st_size / 1e6:.1f} MB)", flush=True)
        print(
            f"correct first: {', '.join(first)}; put the corrected label maps, under the same names, into "
            f"{self.folder / CORRECTED} and run the command again",
            flush=True,
        )

    def page(self) -> str:
        """The whole page, complete with its pictures."""
        rows, record = self._rows(), read_record(self.folder)
        open_rows = [row for row in rows if row["look_at"] != "corrected"]
        atlases = max((int(row["atlases"] or 0) for row in open_rows), default=0)
        tiles = {
            "Label maps": str(len(rows)),
            "Labelled scans they come from": str(atlases),
            "Mean confidence": number(float(np.mean([float(row["confidence"]) for row in open_rows] or [np.nan])), 2),
            "Matches not to be trusted": str(sum(row["look_at"] == "yes" for row in rows)),
        }
        first = "".join(f"<li><b>{escape(row['result'])}</b>: {escape(reason(row))}</li>" for row in open_rows[:FIRST])
        sections = {
            "tiles": "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in tiles.items()),
            "first": first,
            "corrected": escape(str(self.folder / CORRECTED)),
            "results": "".join(
                self._result(place, row, record.get(row["result"], [""])[0]) for place, row in enumerate(rows, 1)
            ),
        }
        return whole_page(self.template, "Labels carried over", sections)

    def _rows(self) -> list[dict[str, str]]:
        """Of the table, the most doubtful first; those whose files are gone are left out."""
        rows = read_rows(self.folder / TABLE)
        return [row for row in rows if (self.folder / f"{row['result']}.nii.gz").is_file()]

    def _result(self, place: int, row: Mapping[str, str], scan: str) -> str:
        name = row["result"]
        label, affine = _read(self.folder / f"{name}.nii.gz")
        image, _ = _read(scan)
        doubtful = self.folder / CONFIDENCE / f"{name}.nii.gz"
        confidence = _read(doubtful)[0] if doubtful.is_file() else np.ones(label.shape)
        spacing = np.linalg.norm(affine[:3, :3], axis=0).tolist()
        codes, numbers = np.unique(np.concatenate([[0], label.round().astype(int).ravel()]), return_inverse=True)
        structures = numbers[1:].reshape(label.shape)
        low, high = np.percentile(image, [0.5, 99.5])
        grey = ((image - low) / max(high - low, 1e-6)).clip(0, 1)
        figures = [
            figure_tag(
                contours(grey, structures, spacing, self.pixels, label_centre(structures)),
                "Label map",
                "through its middle",
                name,
            )
        ]
        if row["look_at"] != "corrected" and len(codes) > 1:
            worst = most_doubtful(confidence, structures, spacing)
            world = affine[:3] @ [*worst, 1.0]
            where = ", ".join(f"{axis} {value:.0f}" for axis, value in zip("RAS", world, strict=True))
            pictures = contours(grey, structures, spacing, self.pixels, worst, 1 - confidence)
            figures.append(figure_tag(pictures, "Most doubtful place", f"{where} mm; doubt in orange", name))
        legend = _legend(codes[1:].tolist()) if len(codes) <= 21 else ""
        scan_shown = f'<span class="quiet">{escape(_below(scan, self.folder))}</span>'
        pictures_shown = f'<div class="wide">{"".join(figures)}</div>{legend}'
        heading = f"<h3>{place}. {escape(name)}</h3><p>{escape(reason(row))}. {scan_shown}</p>"
        return f"<article>{heading}{pictures_shown}</article>"


def reason(row: Mapping[str, str]) -> str:
    """In words, how far a result can be trusted: a line of ``propagation.csv``."""
    if row["look_at"] == "corrected":
        return "corrected by a person, and an atlas for the others"
    unseen = float(row["unseen_percent"])
    said = [
        f"confidence {float(row['confidence']):.2f}",
        f"likeness of the matched scans {float(row['agreement']):.2f}",
        *([f"{unseen:.0f} % of the scan lies beyond every labelled scan"] if unseen >= 1 else []),
        *(["no match can be trusted, or nothing was labelled: look at it"] if row["look_at"] == "yes" else []),
    ]
    return ", ".join(said)


def most_doubtful(confidence: np.ndarray, structures: np.ndarray, spacing: Sequence[float]) -> list[int]:
    """
    Args:
        confidence: ``(D, H, W)``, 0 to 1.
        structures: of the same shape, 0 for the background.
        spacing: voxel size in millimetres.

    Returns:
        the voxel of a structure around which (Gaussian of 4 mm) most doubt lies, as a share of what is labelled there.
    """
    inside = torch.as_tensor((structures > 0)[None, None].astype(np.float32))
    doubt = torch.as_tensor((1 - confidence)[None, None].astype(np.float32)) * inside
    sigma = 4.0 / float(np.mean(spacing))
    around = gaussian(doubt, sigma) / (gaussian(inside, sigma) + 0.1)
    place = int((around * inside).flatten().argmax())
    return [int(index) for index in np.unravel_index(place, structures.shape)]


def contours(
    grey: np.ndarray,
    structures: np.ndarray,
    spacing: Sequence[float],
    pixels: int,
    centre: Sequence[int] | None,
    doubt: np.ndarray | None = None,
) -> dict[str, Image.Image]:
    """
    Args:
        grey: ``(D, H, W)``, within 0..1, RAS.
        structures: numbers of the structures, of the same shape.
        spacing: voxel size in millimetres.
        pixels: length of the longest side.
        centre: voxel that the planes go through; the middle without it.
        doubt: 0 to 1, of the same shape, shaded where there is a structure.

    Returns:
        for the name of each plane its picture, each structure's contour in a colour of its own.
    """
    nearest = (spacing, pixels, centre, Image.Resampling.NEAREST)
    labels = plane_pictures((structures % 256).astype(np.float32) / 255, *nearest)
    shade = None if doubt is None else plane_pictures((doubt * (structures > 0)).astype(np.float32), *nearest)
    palette = np.array([colour(k) for k in range(256)], dtype=np.uint8)
    pictures = {}
    for name, picture in plane_pictures(grey, spacing, pixels, centre).items():
        shown = np.stack([np.asarray(picture, dtype=np.float32)] * 3, axis=-1)
        if shade is not None:
            share = 0.55 * np.asarray(shade[name], dtype=np.float32)[..., None] / 255
            shown = (1 - share) * shown + share * DOUBT
        label = np.asarray(labels[name])
        edge = edges(label)
        shown[edge] = palette[label[edge]]
        pictures[name] = Image.fromarray(shown.astype(np.uint8))
    return pictures


def colour(structure: int) -> tuple[int, int, int]:
    """Of a structure's contour: hues as far apart as may be, however many there are."""
    red, green, blue = colorsys.hsv_to_rgb(0.33 + 0.618034 * (structure - 1) % 1.0, 0.75, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def _legend(codes: Sequence[int]) -> str:
    marks = "".join(
        f'<span style="color:rgb{colour(place)}">\u25a0</span> {code} ' for place, code in enumerate(codes, 1)
    )
    return f'<p class="quiet">Codes: {marks}</p>'


def _below(path: str, folder: Path) -> str:
    """A path as seen from a folder, which stays right when both are moved; as it is on another drive of Windows."""
    try:
        return os.path.relpath(path, folder)
    except ValueError:
        return path


def _read(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """The values of a volume with axes towards right, anterior, superior, and its affine matrix."""
    volume: Any = Orientation(axcodes="RAS", labels=None)(LoadScan()(str(path)))
    return volume[0].numpy(), np.asarray(volume.affine, dtype=float)
