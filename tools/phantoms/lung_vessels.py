# SPDX-License-Identifier: Apache-2.0

"""The vessels inside the lungs: trees grown once from the hila, the same in every subject before its deformation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .points import Points, Shape
from .shapes import beads, dense

LEAF_RADIUS = 0.75
"""Radius of the last branches, mm."""


def _parents(nodes: npt.NDArray[np.float64]) -> list[int]:
    """Join nodes into a tree that trades total length against the way to the root.

    Args:
        nodes: positions in mm, the root first, shape (M, 3).

    Returns:
        The parent of each node, -1 for the root.
    """
    order = np.argsort(np.linalg.norm(nodes - nodes[0], axis=1))
    way, parents, joined = np.zeros(len(nodes)), [-1] * len(nodes), [0]
    for node in order[1:]:
        step = np.linalg.norm(nodes[joined] - nodes[node], axis=1)
        best = int(np.argmin(step + 0.4 * way[joined]))
        parents[node] = joined[best]
        way[node] = way[joined[best]] + step[best]
        joined.append(int(node))
    return parents


def grow(root: tuple[float, float, float], lungs: Shape, leaves: int, rng: np.random.Generator) -> Shape:
    """Grow a tree of vessels.

    Args:
        root: where it enters the lung, mm; its sign in x tells which lung.
        lungs: both lungs.
        leaves: how many nodes to scatter in the lung.
        rng: places the nodes.

    Returns:
        The tree as a shape.
    """
    cloud = rng.uniform((4, -95, -112), (112, 85, 122), (leaves * 12, 3)) * (np.sign(root[0]), 1, 1)
    cloud = cloud[lungs(Points(cloud.T.astype(np.float32))) < -4][:leaves]
    nodes = np.concatenate([[root], cloud])
    parents = _parents(nodes)

    load = np.ones(len(nodes))
    # children are farther from the root than their parents, so loads are summed from the outside in
    for node in np.argsort(-np.linalg.norm(nodes - nodes[0], axis=1))[:-1]:
        load[parents[node]] += load[node]
    radius = LEAF_RADIUS * load ** (1 / 2.7)  # Murray's law
    branches = []
    for node, parent in enumerate(parents):
        if parent >= 0:
            start = min(radius[parent], 1.3 * radius[node])
            branches.append(dense([[*nodes[parent], start], [*nodes[node], radius[node]]]))
    return beads(np.concatenate(branches))
