# SPDX-License-Identifier: Apache-2.0

"""Ways to move and combine shapes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.interpolate import PchipInterpolator

from .points import Array, Points, Shape, moved


def mirror(shape: Shape) -> Shape:
    """``shape``, given on the right (x > 0), on both sides."""
    return moved(shape, lambda x, y, z: (np.abs(x), y, z))


def stacked(shape: Shape, pitch: float, at: float) -> Shape:
    """Copies of ``shape``, given around z = 0, every ``pitch`` mm, one of them at height ``at``."""
    half = np.float32(pitch / 2)
    return moved(shape, lambda x, y, z: (x, y, np.mod(z - np.float32(at) + half, np.float32(pitch)) - half))


def bend(shape: Shape, curve: Sequence[Sequence[float]]) -> Shape:
    """``shape``, given around y = 0, along a curve: rows of z and y in mm, z rising."""
    table = np.asarray(curve, np.float64)
    level = np.arange(table[0, 0], table[-1, 0] + 1.0)
    offset_y = PchipInterpolator(table[:, 0], table[:, 1])(level)
    return moved(shape, lambda x, y, z: (x, y - np.interp(z, level, offset_y).astype(np.float32), z))


def union(*shapes: Shape, k: float = 0.0) -> Shape:
    """All the shapes together, their joins rounded over about ``k`` mm."""

    def evaluate(points: Points) -> Array:
        out = shapes[0](points)
        for shape in shapes[1:]:
            other = shape(points)
            # the polynomial smooth minimum: max(k - |a - b|, 0)^2 / 4k off the smaller one
            round_off = np.maximum(k - np.abs(out - other), 0) ** 2 / np.float32(4 * k) if k else np.float32(0)
            out = np.minimum(out, other) - round_off
        return out

    return evaluate


def intersect(*shapes: Shape) -> Shape:
    """What all the shapes have in common."""
    return lambda points: np.maximum.reduce([shape(points) for shape in shapes])


def outside(shape: Shape) -> Shape:
    """The complement of ``shape``."""
    return lambda points: -shape(points)


def offset(shape: Shape, grow: float) -> Shape:
    """``shape`` with a skin of ``grow`` mm, or peeled by as much where negative."""
    return lambda points: shape(points) - np.float32(grow)
