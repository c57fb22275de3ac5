# SPDX-License-Identifier: Apache-2.0
"""Pictures of an evaluation: outlines of a segmentation, what a classification saw, and its confusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Orientation
from sklearn.metrics import ConfusionMatrixDisplay

from ..plots import PLANES, plane, subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DIFFERENT = (1.0, 0.65, 0.0, 0.45)
"""Orange, through which the image is seen."""


def save(figure: Figure, path: Path) -> None:
    """Write a figure."""
    figure.savefig(path, dpi=110)


def label_planes(
    image: torch.Tensor, prediction: torch.Tensor, label: torch.Tensor
) -> tuple[list[list[np.ndarray]], list[float]]:
    """
    Three planes through the middle of a label, as a radiologist looks at them.

    Args:
        image: ``(1, D, H, W)``, a ``MetaTensor`` in any orientation, within 0..1.
        prediction: structure numbers of the same shape.
        label: structure numbers of the same shape.

    Returns:
        for each plane image, prediction and label, as bytes; and the voxel size (mm) towards right, anterior, superior.
    """
    grey = image.float().clamp(0, 1) * 255
    turned = [Orientation("RAS", labels=None)(volume) for volume in (grey, prediction, label)]
    volumes = [np.asarray(volume[0]).astype(np.uint8) for volume in turned]
    where = np.argwhere(volumes[2] if volumes[2].any() else np.ones_like(volumes[2]))
    centre = where[np.abs(where - where.mean(0)).sum(1).argmin()]
    planes = [[plane(volume, axis, centre[axis]).copy() for volume in volumes] for axis in range(3)]
    return planes, cast(MetaTensor, turned[2]).pixdim.tolist()


def overlay_figure(planes: Sequence[Sequence[np.ndarray]], spacing: Sequence[float], title: str) -> Figure:
    """
    An image with the outlines of label (green) and prediction (red), and what the two call differently in orange:
    outlines alone look right where one structure is taken for another.

    Args:
        planes: of :func:`label_planes`.
        spacing: voxel size in millimetres.
        title: of the figure.
    """
    figure, (axes,) = subplots(1, 3, (10, 3.8))
    for axis, (place, (grey, predicted, true)) in enumerate(zip(axes, planes, strict=True)):
        across, up = (size for index, size in enumerate(spacing) if index != axis)
        place.imshow(grey, cmap="gray", vmin=0, vmax=255, aspect=up / across)
        place.imshow((predicted != true)[..., None] * np.array(DIFFERENT), aspect=up / across)
        for number in np.setdiff1d([true, predicted], 0):
            for outline, colour in ((true, "lime"), (predicted, "red")):
                if (outline == number).any():
                    place.contour(outline == number, levels=[0.5], colors=colour, linewidths=1)
        place.set_title(PLANES[axis], fontsize=9)
        place.axis("off")
    figure.suptitle(f"{title}   (green: label, red: prediction, orange: they differ)", fontsize=10)
    return figure


def planes_figure(planes: Sequence[np.ndarray], spacing: Sequence[float], title: str) -> Figure:
    """
    The three middle planes of what a network saw.

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


def confusion_figure(tables: Mapping[str, Mapping[str, Mapping[str, int]]]) -> Figure:
    """
    Counts of true and predicted classes.

    Args:
        tables: by title, for each true class the counts of the predicted ones.
    """
    classes = list(next(iter(tables.values())))
    size = 1.6 + 0.7 * len(classes)
    figure, axes = subplots(1, len(tables), (size * len(tables), size))
    for place, (title, table) in zip(axes[0], tables.items(), strict=True):
        counts = np.array([list(row.values()) for row in table.values()])
        shown = ConfusionMatrixDisplay(counts, display_labels=classes)
        shown.plot(ax=place, cmap="Blues", colorbar=False, xticks_rotation=45)
        place.set(xlabel="predicted", ylabel="true", title=title)
    return figure
