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

"""Pictures of a match."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib

matplotlib.use("Agg")  # no screen needed; before pyplot

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from PIL import Image

PLANES = ("sagittal", "coronal", "axial")


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


def draw_grid(axes: Axes, displacement: np.ndarray, axis: int, step: int = 3) -> None:
    """
    Draw where a regular grid of the fixed image is sampled in the moving image, projected on a plane.

    Args:
        axes: of matplotlib.
        displacement: ``(3, D, H, W)`` in voxels.
        axis: normal of the plane, through the middle.
        step: voxels between the lines.
    """
    columns, rows = (k for k in range(3) if k != axis)
    size = displacement.shape[1:]
    field = displacement.take(size[axis] // 2, axis=axis + 1)
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
    corrupted: np.ndarray,
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
        corrupted: the moving image after the appearance transformations.
        restored: the network's restoration of it.
        spacing: voxel size in millimetres, for the aspect.
        title: of the figure.

    Returns:
        the figure; close it after use.
    """
    images = {"fixed": fixed, "moving": moving, "warped": warped}
    differences = {"moving - fixed": moving - fixed, "warped - fixed": warped - fixed}
    restoration = {"moving, corrupted": corrupted, "restored": restored}
    names = [*images, *differences, "sampling grid", *restoration]
    figure, table = plt.subplots(3, len(names), figsize=(1.9 * len(names), 6.2), layout="constrained")
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


def curves_figure(history: Sequence[dict[str, float]]) -> Figure:
    """
    The course of training.

    Args:
        history: one row per epoch, ``epoch`` and named values; names ending in ``_before`` are drawn dashed with their
            ``_after``.

    Returns:
        the figure; close it after use.
    """
    groups = {
        "losses (training)": ["matching", "smoothness", "restoration"],
        "NCC (held-back pairs)": ["ncc_before", "ncc_after"],
        "label Dice (held-back pairs)": ["dice_before", "dice_after"],
        "folded voxels, %": ["folded_percentage"],
    }
    shown = {title: [n for n in names if any(n in row for row in history)] for title, names in groups.items()}
    shown = {title: names for title, names in shown.items() if names}
    figure, table = plt.subplots(1, len(shown), figsize=(4 * len(shown), 3), layout="constrained", squeeze=False)
    for axes, (title, names) in zip(table[0], shown.items(), strict=True):
        for name in names:
            rows = [(row["epoch"], row[name]) for row in history if name in row]
            style = {"linestyle": "--", "color": "gray"} if name.endswith("_before") else {"marker": "."}
            axes.plot(*zip(*rows, strict=True), label=name.replace("_", " "), **style)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("epoch")
        axes.legend(fontsize=8)
    return figure


def as_volume(image: np.ndarray) -> np.ndarray:
    """
    Args:
        image: ``(D, H, W)``, or ``(H, W)`` of a 2D network.

    Returns:
        float, ``(D, H, W)``; a 2D image becomes one axial slice.
    """
    return (image if image.ndim == 3 else image[..., None]).astype(np.float32)


def overlay(fixed: np.ndarray, other: np.ndarray) -> np.ndarray:
    """
    Two images in one: grey where they agree, green where the fixed one is brighter, magenta where the other is.

    Args:
        fixed: ``(D, H, W)``, within 0..1.
        other: the moving or the warped image.

    Returns:
        ``(D, H, W, 3)``.
    """
    return np.stack([other, fixed, other], axis=-1)


def difference(fixed: np.ndarray, other: np.ndarray, limit: float = 0.6) -> np.ndarray:
    """
    Args:
        fixed: ``(D, H, W)``, within 0..1.
        other: the moving or the warped image.
        limit: difference of the full colour.

    Returns:
        ``(D, H, W, 3)``: red where the other image is brighter, blue where it is darker, white where they agree.
    """
    return plt.colormaps["RdBu_r"]((other - fixed) / (2 * limit) + 0.5)[..., :3]


def shown_planes(size: Sequence[int], spacing: Sequence[float], pixels: int) -> dict[int, tuple[int, int]]:
    """
    Args:
        size: of the volume.
        spacing: voxel size in millimetres.
        pixels: length of the volume's longest side in the picture.

    Returns:
        for the normal of each plane ``(width, height)`` of its picture, all to one scale; planes a single voxel thick
        (2D images) are left out.
    """
    extent = [count * step for count, step in zip(size, spacing, strict=True)]
    lengths = [max(1, round(pixels * side / max(extent))) for side in extent]
    sides = {axis: [k for k in range(3) if k != axis] for axis in range(3)}
    return {
        axis: (lengths[columns], lengths[rows])
        for axis, (columns, rows) in sides.items()
        if min(size[columns], size[rows]) > 1
    }


def plane_pictures(
    volume: np.ndarray, spacing: Sequence[float] = (1, 1, 1), pixels: int = 240
) -> dict[str, Image.Image]:
    """
    The middle slices with their true proportions.

    Args:
        volume: ``(D, H, W)`` grey or ``(D, H, W, 3)`` colours, RAS, within 0..1.
        spacing: voxel size in millimetres.
        pixels: length of the longest side.

    Returns:
        for the name of each plane its picture.
    """
    bytes_ = (volume.clip(0, 1) * 255).round().astype(np.uint8)
    channels = np.moveaxis(bytes_, -1, 0) if volume.ndim == 4 else bytes_[None]
    pictures = {}
    for axis, shape in shown_planes(volume.shape[:3], spacing, pixels).items():
        slices = np.stack([plane(channel, axis) for channel in channels], axis=-1)
        pictures[PLANES[axis]] = Image.fromarray(slices.squeeze(-1) if len(channels) == 1 else slices).resize(
            shape, Image.Resampling.BICUBIC
        )
    return pictures


def grid_pictures(
    displacement: np.ndarray, spacing: Sequence[float] = (1, 1, 1), pixels: int = 240
) -> dict[str, Image.Image]:
    """
    The displacement as a deformed grid, see :func:`draw_grid`, in pictures as large as those of :func:`plane_pictures`.

    Args:
        displacement: ``(3, D, H, W)`` in voxels, or ``(2, H, W)``.
        spacing: voxel size in millimetres.
        pixels: length of the longest side.

    Returns:
        for the name of each plane its picture.
    """
    field = displacement.astype(np.float32)
    if len(field) == 2:
        field = np.concatenate([field, np.zeros_like(field[:1])])[..., None]
    pictures = {}
    for axis, (width, height) in shown_planes(field.shape[1:], spacing, pixels).items():
        figure = plt.figure(figsize=(width / 100, height / 100), dpi=100)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.axis("off")
        draw_grid(axes, field, axis, step=max(2, max(field.shape[1:]) // 24))
        axes.set_aspect("auto")
        figure.canvas.draw()
        pictures[PLANES[axis]] = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3])  # type: ignore[attr-defined]
        plt.close(figure)
    return pictures


def mosaic(rows: Sequence[Sequence[Image.Image]], gap: int = 6) -> Image.Image:
    """
    Args:
        rows: pictures; each row is as high as its highest, each column as wide as its widest.
        gap: pixels between them.

    Returns:
        one picture of all, black between and around the smaller ones.
    """
    widths = [max(picture.width for picture in column) for column in zip(*rows, strict=True)]
    heights = [max(picture.height for picture in row) for row in rows]
    whole = Image.new("RGB", (sum(widths) + gap * (len(widths) - 1), sum(heights) + gap * (len(heights) - 1)))
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            left = sum(widths[:j]) + gap * j + (widths[j] - picture.width) // 2
            top = sum(heights[:i]) + gap * i + (heights[i] - picture.height) // 2
            whole.paste(picture, (left, top))
    return whole


def embedding_figure(points: np.ndarray, codes: np.ndarray, names: dict[int, str]) -> Figure:
    """
    Features as points in the plane, coloured by structure.

    Args:
        points: ``(n, 2)``.
        codes: structure of each.
        names: of the structures.

    Returns:
        the figure; close it after use.
    """
    found = np.unique(codes)
    map_name = "tab10" if len(found) <= 10 else "tab20" if len(found) <= 20 else "turbo"
    palette = plt.colormaps[map_name]
    figure, axes = plt.subplots(figsize=(5.6, 5.6 + 0.14 * len(found)), layout="constrained")
    for index, code in enumerate(found):
        colour = palette(index if palette.N <= 20 else index / len(found))
        chosen = points[codes == code]
        axes.scatter(
            chosen[:, 0], chosen[:, 1], s=9, alpha=0.75, linewidths=0, color=colour, label=names.get(code, code)
        )
    axes.set_xticks([])
    axes.set_yticks([])
    figure.legend(loc="outside lower center", ncols=3, markerscale=2.5, fontsize=9, frameon=False)
    return figure
