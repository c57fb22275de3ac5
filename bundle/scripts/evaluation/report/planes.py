# SPDX-License-Identifier: Apache-2.0
"""Pictures of the report: overlays, planes side by side, sampling grids, the embedding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ...plots import PLANES, draw_grid, plane, subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
    from matplotlib import colormaps

    return colormaps["RdBu_r"]((other - fixed) / (2 * limit) + 0.5)[..., :3]


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
    volume: np.ndarray,
    spacing: Sequence[float] = (1, 1, 1),
    pixels: int = 240,
    centre: Sequence[int] | None = None,
    resampling: Image.Resampling = Image.Resampling.BICUBIC,
) -> dict[str, Image.Image]:
    """
    Slices with their true proportions.

    Args:
        volume: ``(D, H, W)`` grey or ``(D, H, W, 3)`` colours, RAS, within 0..1.
        spacing: voxel size in millimetres.
        pixels: length of the longest side.
        centre: voxel that they go through; the middle without it.
        resampling: of the pixels.

    Returns:
        for the name of each plane its picture.
    """
    bytes_ = (volume.clip(0, 1) * 255).round().astype(np.uint8)
    channels = np.moveaxis(bytes_, -1, 0) if volume.ndim == 4 else bytes_[None]
    pictures = {}
    for axis, shape in shown_planes(volume.shape[:3], spacing, pixels).items():
        index = None if centre is None else centre[axis]
        slices = np.stack([plane(channel, axis, index) for channel in channels], axis=-1)
        pictures[PLANES[axis]] = Image.fromarray(slices.squeeze(-1) if len(channels) == 1 else slices).resize(
            shape, resampling
        )
    return pictures


def grid_pictures(
    displacement: np.ndarray,
    spacing: Sequence[float] = (1, 1, 1),
    pixels: int = 240,
    centre: Sequence[int] | None = None,
) -> dict[str, Image.Image]:
    """
    The displacement as a deformed grid, see :func:`draw_grid`, in pictures as large as those of :func:`plane_pictures`.

    Args:
        displacement: ``(3, D, H, W)`` in voxels, or ``(2, H, W)``.
        spacing: voxel size in millimetres.
        pixels: length of the longest side.
        centre: voxel that the planes go through; the middle without it.

    Returns:
        for the name of each plane its picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    field = displacement.astype(np.float32)
    if len(field) == 2:
        field = np.concatenate([field, np.zeros_like(field[:1])])[..., None]
    pictures = {}
    for axis, (width, height) in shown_planes(field.shape[1:], spacing, pixels).items():
        figure = Figure(figsize=(width / 100, height / 100), dpi=100)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.axis("off")
        index = None if centre is None else centre[axis]
        draw_grid(axes, field, axis, step=max(2, max(field.shape[1:]) // 24), index=index)
        axes.set_aspect("auto")
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        pictures[PLANES[axis]] = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
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
        the figure.
    """
    from matplotlib import colormaps

    found = np.unique(codes)
    map_name = "tab10" if len(found) <= 10 else "tab20" if len(found) <= 20 else "turbo"
    palette = colormaps[map_name]
    figure, ((axes,),) = subplots(1, 1, (5, 5 + 0.16 * len(found)))
    for index, code in enumerate(found):
        colour = palette(index if palette.N <= 20 else index / len(found))
        chosen = points[codes == code]
        axes.scatter(
            chosen[:, 0], chosen[:, 1], s=12, alpha=0.75, linewidths=0, color=colour, label=names.get(code, code)
        )
    axes.set_xticks([])
    axes.set_yticks([])
    figure.legend(loc="outside lower center", ncols=2, markerscale=2, fontsize=11, frameon=False)
    return figure
