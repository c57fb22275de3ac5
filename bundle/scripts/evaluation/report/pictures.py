# SPDX-License-Identifier: Apache-2.0
"""What the report shows of pairs and subjects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import torch
from PIL import Image

from ...matching.match_table import CONFIDENCE
from ...networks.gvsl import GVSL
from ..clustering import principal_colours
from .html import DIGITS, change, figure_tag, flexible, image_tag, number
from .outlines import label_centre, outlines
from .planes import (
    as_volume,
    difference,
    grid_pictures,
    mosaic,
    overlay,
    plane_pictures,
)
from .tables import DOUBTFUL


def comparison(
    volume: Mapping[str, np.ndarray], spacing: Sequence[float], name: str, centre: Sequence[int] | None = None
) -> str:
    """
    Args:
        volume: images of a pair.
        spacing: voxel size in millimetres.
        name: of the pair.
        centre: voxel that the planes go through; the middle without it.

    Returns:
        the three planes, each with a slider from the moving to the warped image, overlaid on the fixed one.
    """
    before, after = (
        plane_pictures(overlay(volume["fixed"], volume[key]), spacing, 360, centre) for key in ("moving", "warped")
    )
    stacks = "".join(
        f'<figure class="stack" {flexible(picture)}><div>'
        f"{image_tag(picture, f'{name}, {title}, moving over fixed', 'draggable=false')}"
        f"{image_tag(after[title], f'{name}, {title}, warped over fixed', 'class=after draggable=false')}"
        f"<i></i></div><figcaption>{title}</figcaption></figure>"
        for title, picture in before.items()
    )
    label = escape(f"{name}: before (0) or after the match (100)")
    slider = f'<input type="range" min="0" max="100" value="50" aria-label="{label}">'
    return (
        f'<div class="compare"><div class="planes">{stacks}</div>'
        f"<label><span>before</span>{slider}<span>after</span></label></div>"
    )


def pair_section(name: str, row: Mapping[str, Any], kept: Mapping[str, np.ndarray], spacing: Sequence[float]) -> str:
    """
    Args:
        name: rank of the pair.
        row: its measures.
        kept: its volumes, see :func:`pair_volumes`.
        spacing: voxel size in millimetres.

    Returns:
        everything about one pair, in planes through the middle of the fixed scan's labels, or of the grid.
    """
    volume = {key: as_volume(image) for key, image in kept.items() if key != "displacement"}
    centre = label_centre(volume["fixed_label"]) if "fixed_label" in volume else None
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
        pictures = (
            grid_pictures(kept["displacement"], spacing, centre=centre)
            if image is None
            else plane_pictures(image, spacing, centre=centre)
        )
        figures.append(figure_tag(pictures, title, text, f"{name} pair"))
    values = [
        f"{label} {change(row, key)}"
        for key, label in (("dice", "Dice"), ("ncc", "NCC"), ("hd95", "HD95 (mm)"))
        if f"{key}_after" in row
    ]
    values.append(f"{row['folded_percentage']:.2f} % folded")
    values += [f"{name} {number(row[name], DIGITS[name])}" for name in CONFIDENCE if name in row]
    if row.get("look_at") == "yes":
        values.append(f"{DOUBTFUL}: {row['doubts']}")
    return (
        f"<article><h3>{escape(name)} pair</h3><p><b>{escape('; '.join(values))}</b><br>moving "
        f"<code>{escape(row['moving'])}</code>, fixed <code>{escape(row['fixed'])}</code></p>"
        f"{comparison(volume, spacing, f'{name} pair', centre)}{outlines(volume, spacing, f'{name} pair', centre)}"
        f'<div class="strips">{"".join(figures)}</div></article>'
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
        for axis in range(3):
            planes.swapaxes(0, axis)[planes.shape[axis] // 2] = True
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
