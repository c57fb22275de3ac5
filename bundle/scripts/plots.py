# SPDX-License-Identifier: Apache-2.0
"""Pictures of a match and of a training, as figures of their own: no window, no global state, nothing to close."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # the server of MONAI Label trains without matplotlib: only what draws asks for it
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PLANES = ("sagittal", "coronal", "axial")
MEASURES = {
    "NCC (held-back pairs)": ["ncc_before", "ncc_after"],
    "label Dice (held-back pairs)": ["dice_before", "dice_after"],
    "folded voxels, %": ["folded_percentage"],
}
"""What the history of a training has of held-back pairs, by the title of its curves."""


def subplots(rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, Any]:
    """
    What pyplot's function of this name does, without the figure that pyplot keeps and the backend that it chooses.

    Args:
        rows: of axes.
        columns: of axes.
        size: in inches, width first.

    Returns:
        the figure, and its axes ``(rows, columns)``.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def plane(volume: np.ndarray, axis: int, index: int | None = None) -> np.ndarray:
    """
    A slice as a radiologist looks at it: superior (or anterior) up, the patient's right on the left.

    Args:
        volume: ``(D, H, W)`` with axes towards right, anterior, superior (RAS).
        axis: normal of the plane.
        index: slice; the middle one without it.

    Returns:
        ``(rows, columns)``.
    """
    middle = volume.shape[axis] // 2 if index is None else index
    return volume.take(middle, axis=axis)[::-1, ::-1].T


def draw_grid(axes: Axes, displacement: np.ndarray, axis: int, step: int = 3, index: int | None = None) -> None:
    """
    Draw where a regular grid of the fixed image is sampled in the moving image, projected on a plane.

    Args:
        axes: of matplotlib.
        displacement: ``(3, D, H, W)`` in voxels.
        axis: normal of the plane.
        step: voxels between the lines.
        index: slice; the middle one without it.
    """
    from matplotlib.collections import LineCollection

    columns, rows = (k for k in range(3) if k != axis)
    size = displacement.shape[1:]
    field = displacement.take(size[axis] // 2 if index is None else index, axis=axis + 1)
    u, v = np.meshgrid(np.arange(size[columns]), np.arange(size[rows]), indexing="ij")
    points = np.stack([size[columns] - 1 - (u + field[columns]), size[rows] - 1 - (v + field[rows])], axis=-1)
    lines = [*points[::step], *points.swapaxes(0, 1)[::step]]
    axes.add_collection(LineCollection(lines, linewidths=0.5, colors="black"))
    axes.set_xlim(-0.5, size[columns] - 0.5)
    axes.set_ylim(size[rows] - 0.5, -0.5)


def matching_figure(
    fixed: np.ndarray,
    moving: np.ndarray,
    warped: np.ndarray,
    displacement: np.ndarray,
    corrupted: np.ndarray | None,
    restored: np.ndarray,
    spacing: Sequence[float] = (1, 1, 1),
    title: str = "",
) -> Figure:
    """
    One matched pair in three planes: fixed, moving, warped, difference before and after, grid, corrupted, restored.

    Args:
        fixed: ``(D, H, W)``, like every image here, RAS, intensities within 0..1.
        moving: the moving image.
        warped: the moving image in the fixed image's frame.
        displacement: ``(3, D, H, W)`` in voxels.
        corrupted: the moving image after the appearance transformations; None where the clean one was restored.
        restored: the network's restoration of it.
        spacing: voxel size in millimetres, for the aspect.
        title: of the figure.

    Returns:
        the figure.
    """
    images = {"fixed": fixed, "moving": moving, "warped": warped}
    differences = {"moving - fixed": moving - fixed, "warped - fixed": warped - fixed}
    restoration = ({} if corrupted is None else {"moving, corrupted": corrupted}) | {"restored": restored}
    names = [*images, *differences, "sampling grid", *restoration]
    figure, table = subplots(3, len(names), (1.9 * len(names), 6.2))
    for axis, row in enumerate(table):
        horizontal, vertical = (spacing[k] for k in range(3) if k != axis)
        for name, axes in zip(names, row, strict=True):
            if name in differences:
                axes.imshow(plane(differences[name], axis), cmap="RdBu_r", vmin=-0.6, vmax=0.6)
            elif name == "sampling grid":
                draw_grid(axes, displacement, axis)
            else:
                axes.imshow(plane({**images, **restoration}[name], axis), cmap="gray", vmin=0, vmax=1)
            axes.set_aspect(vertical / horizontal)
            axes.set_xticks([])
            axes.set_yticks([])
            if axis == 0:
                axes.set_title(name, fontsize=9)
        row[0].set_ylabel(PLANES[axis], fontsize=9)
    figure.suptitle(title, fontsize=10)
    return figure


def loss_terms(history: Sequence[Mapping[str, float]]) -> list[str]:
    """
    The terms of the loss: columns of the history that are neither its total nor anything else that is known.

    Args:
        history: one row per epoch.

    Returns:
        names, in the order in which they appear.
    """
    known = {"epoch", "learning_rate", "train_loss", *(name for names in MEASURES.values() for name in names)}
    return list(dict.fromkeys(name for row in history for name in row if name not in known))


def curve_groups(history: Sequence[Mapping[str, float]]) -> dict[str, list[str]]:
    """
    Which columns of a training's history are drawn together.

    Args:
        history: one row per epoch.

    Returns:
        those that are there, by title.
    """
    terms = loss_terms(history)
    places = "places"  # much larger than the others
    groups = {
        "contrast of places (training)": [name for name in terms if name == places],
        "losses (training)": [name for name in terms if name != places],
        **MEASURES,
    }
    shown = {title: [n for n in names if any(n in row for row in history)] for title, names in groups.items()}
    return {title: names for title, names in shown.items() if names}


def curves_figure(history: Sequence[Mapping[str, float]]) -> Figure:
    """
    The course of training.

    Args:
        history: one row per epoch, ``epoch`` and named values; names ending in ``_before`` are drawn dashed with their
            ``_after``.

    Returns:
        the figure.
    """
    shown = curve_groups(history)
    figure, table = subplots(1, len(shown), (4 * len(shown), 3.4))
    for axes, (title, names) in zip(table[0], shown.items(), strict=True):
        for name in names:
            rows = [(row["epoch"], row[name]) for row in history if name in row]
            style = {"linestyle": "--", "color": "gray"} if name.endswith("_before") else {"marker": "."}
            axes.plot(*zip(*rows, strict=True), label=name.replace("_", " "), **style)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("epoch")
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.18), "frameon": False}  # inside it covers points
        axes.legend(fontsize=8, ncols=min(3, len(names)), **below)
    return figure
