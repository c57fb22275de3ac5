# SPDX-License-Identifier: Apache-2.0
"""Outlines of the structures of both scans of a pair, drawn on the fixed image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from .html import figure_tag
from .planes import plane_pictures

GREEN, MAGENTA = (40, 220, 70), (240, 60, 240)


def label_centre(label: np.ndarray) -> list[int] | None:
    """
    Args:
        label: ``(D, H, W)``, 0 for the background.

    Returns:
        the voxel in the middle of what is labelled; None where nothing is.
    """
    found = np.argwhere(label > 0)
    return np.rint(found.mean(axis=0)).astype(int).tolist() if len(found) else None


def outline_pictures(
    volume: np.ndarray,
    fixed: np.ndarray,
    other: np.ndarray,
    spacing: Sequence[float] = (1, 1, 1),
    pixels: int = 360,
    centre: Sequence[int] | None = None,
) -> dict[str, Image.Image]:
    """
    Outlines of two label maps on an image: green the fixed scan's, magenta the other's, white where they coincide and
    are of the same structure.

    Args:
        volume: ``(D, H, W)``, within 0..1.
        fixed: label map of the same shape, up to 255 structures.
        other: label map of the same shape.
        spacing: voxel size in millimetres.
        pixels: length of the longest side.
        centre: voxel that the planes go through; the middle without it.

    Returns:
        for the name of each plane its picture.
    """
    maps = [
        plane_pictures(label.astype(np.float32) / 255, spacing, pixels, centre, Image.Resampling.NEAREST)
        for label in (fixed, other)
    ]
    pictures = {}
    for name, grey in plane_pictures(0.8 * volume, spacing, pixels, centre).items():
        shown = np.stack([np.asarray(grey)] * 3, axis=-1)
        own, carried = (np.asarray(part[name]) for part in maps)
        first, second = edges(own), edges(carried)
        shown[first], shown[second], shown[first & second & (own == carried)] = GREEN, MAGENTA, 255
        pictures[name] = Image.fromarray(shown)
    return pictures


def edges(label: np.ndarray) -> np.ndarray:
    """Pixels of a structure beside ones of another or none."""
    found = np.zeros(label.shape, dtype=bool)
    for axis in (0, 1):
        for step in (-1, 1):
            found |= label != np.roll(label, step, axis)
    return found & (label > 0)


def outlines(
    volume: Mapping[str, np.ndarray], spacing: Sequence[float], name: str, centre: Sequence[int] | None = None
) -> str:
    """
    Args:
        volume: images and label maps of a pair.
        spacing: voxel size in millimetres.
        name: of the pair.
        centre: voxel that the planes go through; the middle without it.

    Returns:
        the structures' outlines on the fixed image before and after the match; nothing without labels.
    """
    if "carried_label" not in volume:
        return ""
    shown = {
        "Structures before": ("moving_label", "green: the fixed scan's own, magenta: the moving scan's as they lie"),
        "Structures after": ("carried_label", "magenta: the moving scan's, carried over; white: both coincide"),
    }
    figures = []
    for title, (key, text) in shown.items():
        pictures = outline_pictures(volume["fixed"], volume["fixed_label"], volume[key], spacing, 360, centre)
        figures.append(figure_tag(pictures, title, text, name))
    return f'<div class="wide">{"".join(figures)}</div>'
