# SPDX-License-Identifier: Apache-2.0

"""Points, and solid shapes as signed distances from them in millimetres: negative inside, positive outside.

Axes are R, A, S: x to the right, y to the front, z up. Distances are true near the edges and rough elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

FAR = np.float32(200.0)
"""The distance given to points too far from a shape to be worth computing."""

MARGIN = 20.0
"""How far outside its bounding box a shape is still computed; blends and dilations must stay below it."""


@dataclass(frozen=True)
class Points:
    """Points at which shapes are evaluated.

    Args:
        xyz: canonical coordinates in mm, shape (3, N).
        memo: results of the shapes wrapped in :func:`shared`, by identity.
    """

    xyz: Array
    memo: dict[int, Array] = field(default_factory=dict)


Shape = Callable[[Points], Array]


def shared(shape: Shape) -> Shape:
    """Compute ``shape`` once for a set of points, however many shapes use it."""

    def evaluate(points: Points) -> Array:
        if id(evaluate) not in points.memo:
            points.memo[id(evaluate)] = shape(points)
        return points.memo[id(evaluate)]

    return evaluate


def _where(shape: Shape, keep: Callable[[Points], npt.NDArray[np.bool_]]) -> Shape:
    """Compute ``shape`` only where ``keep`` holds, ``FAR`` elsewhere."""

    def evaluate(points: Points) -> Array:
        kept = np.flatnonzero(keep(points))
        out = np.full(points.xyz.shape[1], FAR, np.float32)
        if kept.size:
            out[kept] = shape(Points(points.xyz[:, kept]))
        return out

    return evaluate


def boxed(shape: Shape, low: npt.ArrayLike, high: npt.ArrayLike) -> Shape:
    """Compute ``shape`` only within ``MARGIN`` of the box from ``low`` to ``high`` (mm)."""
    least = np.asarray(low, np.float32)[:, None] - np.float32(MARGIN)
    most = np.asarray(high, np.float32)[:, None] + np.float32(MARGIN)

    def inside(points: Points) -> npt.NDArray[np.bool_]:
        return np.logical_and.reduce((points.xyz >= least) & (points.xyz <= most))

    return _where(shape, inside)


def gated(shape: Shape, gate: Shape, margin: float = 3.0) -> Shape:
    """Compute ``shape`` only inside ``gate`` and up to ``margin`` mm around it."""
    return _where(shape, lambda points: np.less(gate(points), margin))


def moved(shape: Shape, move: Callable[[Array, Array, Array], tuple[Array, Array, Array]]) -> Shape:
    """Evaluate ``shape`` at other coordinates."""
    return lambda points: shape(Points(np.stack(move(*points.xyz))))
