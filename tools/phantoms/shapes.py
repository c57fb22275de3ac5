# SPDX-License-Identifier: Apache-2.0

"""The simple shapes everything is made of; each is a function of :class:`.points.Points`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.interpolate import PchipInterpolator
from scipy.spatial import cKDTree

from .points import FAR, MARGIN, Array, Points, Shape, boxed, moved


def ellipsoid(centre: Sequence[float], semi: Sequence[float], axes: npt.ArrayLike | None = None) -> Shape:
    """An ellipsoid.

    Args:
        centre: its centre, mm.
        semi: its three semi-axes, mm.
        axes: directions of the semi-axes, one unit vector a row, shape (3, 3); the coordinate axes by default.
    """
    c, r = np.asarray(centre, np.float32), np.asarray(semi, np.float32)
    rows = np.eye(3, dtype=np.float32) if axes is None else np.asarray(axes, np.float32)

    def evaluate(points: Points) -> Array:
        d = points.xyz - c[:, None]
        # written out rather than a matrix product: BLAS may round differently with another number of threads
        q = [row[0] * d[0] + row[1] * d[1] + row[2] * d[2] for row in rows]
        k0 = np.sqrt(sum((v / s) ** 2 for v, s in zip(q, r, strict=True)))
        k1 = np.sqrt(sum((v / s**2) ** 2 for v, s in zip(q, r, strict=True)))
        k0 = np.maximum(k0, 1e-3)
        return k0 * (k0 - 1) / np.maximum(k1, 1e-3 / r.max())

    reach = r if axes is None else np.full(3, r.max())
    return boxed(evaluate, c - reach, c + reach)


def cylinder(centre: Sequence[float], rx: float, ry: float, half: float = np.inf) -> Shape:
    """An upright elliptic cylinder: radii ``rx``, ``ry`` and half height ``half`` in mm, endless by default."""

    def evaluate(points: Points) -> Array:
        x, y, z = (points.xyz[i] - np.float32(centre[i]) for i in range(3))
        side = (np.hypot(x / np.float32(rx), y / np.float32(ry)) - 1) * np.float32(min(rx, ry))
        return side if np.isinf(half) else np.maximum(side, np.abs(z) - np.float32(half))

    return evaluate


def half_space(point: Sequence[float], normal: Sequence[float]) -> Shape:
    """All that lies behind the plane through ``point`` (mm) whose outward direction is ``normal``."""
    n = np.asarray(normal, np.float64) / np.linalg.norm(normal)
    n32, shift = n.astype(np.float32), np.float32(n @ np.asarray(point))
    return lambda points: n32[0] * points.xyz[0] + n32[1] * points.xyz[1] + n32[2] * points.xyz[2] - shift


def dense(nodes: npt.ArrayLike, step: float = 1.0) -> npt.NDArray[np.float64]:
    """Sample the smooth curve through ``nodes``.

    Args:
        nodes: rows of x, y, z and more columns (a radius), mm, shape (M, C).
        step: distance between the samples, mm.

    Returns:
        The samples, shape (S, C).
    """
    rows = np.asarray(nodes, np.float64)
    arc = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(rows[:, :3], axis=0), axis=1))])
    return PchipInterpolator(arc, rows)(np.linspace(0, arc[-1], int(arc[-1] / step) + 2))


def beads(samples: npt.NDArray[np.float64]) -> Shape:
    """Balls strung densely along curves: rows of x, y, z, radius in mm, shape (S, 4)."""
    tree, radius = cKDTree(samples[:, :3]), samples[:, 3].astype(np.float32)

    def evaluate(points: Points) -> Array:
        distance, nearest = tree.query(points.xyz.T, distance_upper_bound=float(radius.max()) + MARGIN)
        found = np.isfinite(distance)
        out = np.full(distance.shape, FAR, np.float32)
        out[found] = distance[found].astype(np.float32) - radius[nearest[found]]
        return out

    reach = samples[:, 3:4]
    return boxed(evaluate, (samples[:, :3] - reach).min(0), (samples[:, :3] + reach).max(0))


def tube(*nodes: Sequence[float], flat: float = 1.0) -> Shape:
    """A tube along the smooth curve through ``nodes`` (x, y, z, radius in mm), ``flat`` times as wide in x."""
    samples = dense(nodes)
    samples[:, 0] /= flat
    return moved(beads(samples), lambda x, y, z: (x / np.float32(flat), y, z))


def loft(rows: Sequence[Sequence[float]], power: float) -> Shape:
    """A stack of superellipses.

    Args:
        rows: z, centre y, half width (x) and half depth (y) in mm, z rising.
        power: exponent of the superellipses, 2 for ellipses.
    """
    table = np.asarray(rows, np.float64)
    level = np.arange(table[0, 0], table[-1, 0] + 1.0)
    columns = PchipInterpolator(table[:, 0], table[:, 1:])(level).T

    def evaluate(points: Points) -> Array:
        x, y, z = points.xyz
        cy, rx, ry = (np.interp(z, level, c).astype(np.float32) for c in columns)
        slope = [np.interp(z, level, np.gradient(c)).astype(np.float32) for c in columns]
        u, v = np.abs(x) / rx, np.abs(y - cy) / ry
        # value and gradient of the gauge function; dividing by the gradient turns it into a distance
        k = np.maximum((u**power + v**power) ** (1 / power), 1e-3)
        du, dv = (u / k) ** (power - 1), (v / k) ** (power - 1)
        dz = du * u * slope[1] / rx + dv * (np.sign(y - cy) * slope[0] + v * slope[2]) / ry
        return ((k - 1) / np.sqrt((du / rx) ** 2 + (dv / ry) ** 2 + dz**2)).astype(np.float32)

    return evaluate
