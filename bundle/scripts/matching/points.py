# SPDX-License-Identifier: Apache-2.0
"""Landmarks carried with a match from one scan to the other, and how far they come to lie from those drawn there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.geometry import ScanGeometry
from ..data.writing import geometry_of
from ..errors import InputError
from ..files import write_text
from ..spatial.scanner_space import transform_points
from .match_table import put_rows
from .point_files import TABLE, PointFile, read_points

COLUMNS = ("result", "of", "point", "x", "y", "z", "inside", "residual_mm", "error_mm")
SIDES = {"points": "moving", "fixed_points": "fixed"}
"""Whose landmarks they are, by the pair's entry."""
UNRESOLVED = 0.1
"""Millimetres by which the inverse of a map may miss before it is said."""


def invert(
    match: Callable[[torch.Tensor], torch.Tensor], affine: torch.Tensor, points: torch.Tensor, rounds: int = 100
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Where points of the moving scan lie in the fixed one: the inverse of a map, by fixed-point iteration from that of
    its affine part. A step that leads away from a point is taken back and halved.

    Args:
        match: the map, ``(3, K)`` to ``(3, K)`` in millimetres, see :class:`~scripts.spatial.WorldMatch`.
        affine: its affine part, ``(4, 4)``.
        points: ``(3, K)`` in millimetres of the moving scan's space.
        rounds: largest number of steps.

    Returns:
        ``(3, K)`` in millimetres of the fixed scan's space, and by how far each one's image misses its point, ``(K,)``.
    """
    back = torch.linalg.inv(affine.to(points))
    found = transform_points(back, points)
    miss = points - match(found)
    residual, step = miss.norm(dim=0), torch.ones_like(points[0])
    for _ in range(rounds):
        if residual.max() < 1e-4:
            break
        tried = found + step * (back[:3, :3] @ miss)
        missed = points - match(tried)
        closer = missed.norm(dim=0) < residual
        found, miss = torch.where(closer, tried, found), torch.where(closer, missed, miss)
        residual, step = miss.norm(dim=0), torch.where(closer, (2 * step).clamp(max=1.0), step / 2)
    return found, residual


def carry_points(data: dict[str, Any], match: Any, folder: Path) -> dict[str, str]:
    """
    Carry the landmarks of a pair, each to the other scan's space, in their own format and space: those of the moving
    scan (entry ``points``) to the fixed one as ``points`` with their file's ending, those of the fixed scan
    (``fixed_points``) to the moving one as ``fixed_points``. ``points.csv`` beside the folder has a row a landmark, in
    RAS, and where both scans have a landmark of that name the ``error_mm`` between the carried and the drawn one.

    Args:
        data: a batch of one pair, see :class:`~scripts.matching.WriteMatch`.
        match: of it, see :class:`~scripts.spatial.WorldMatch`.
        folder: of its results.

    Returns:
        ``tre_mm``, the mean error in the moving scan's space, if both scans have landmarks of the same names.

    Raises:
        InputError: where no landmark of a file lies in its scan.
    """
    space = data["points_space"][0] if "points_space" in data else None
    files = {key: read_points(data[key][0], space) for key in SIDES if key in data}
    if not files:
        return {}
    scans = {"fixed": data["original_image"], "moving": data["original_moving"]}
    lies = {side: geometry_of(scan) for side, scan in scans.items()}
    drawn = {SIDES[key]: _from_itk(found, lies[SIDES[key]], data[key][0]) for key, found in files.items()}
    rows: list[dict[str, str]] = []
    errors: dict[str, np.ndarray] = {}
    for key, found in files.items():
        side = SIDES[key]
        other = "fixed" if side == "moving" else "moving"
        start = torch.from_numpy(drawn[side].T.copy())
        if side == "moving":
            carried, residual = invert(match, match.matrix(), start)
            _tell_unresolved(data[key][0], found.names, residual)
        else:
            carried, residual = match(start), torch.zeros(start.shape[1])
        places = carried.T.numpy()
        in_itk = _moved(lies[other].to_itk(), places)
        write_text(found.text(in_itk), folder / f"{key}{found.ending}")
        pairs = _same_names(files, key)
        errors[side] = np.array([np.linalg.norm(places[i] - drawn[other][j]) for i, j in pairs])
        error = {i: value for (i, _), value in zip(pairs, errors[side], strict=True)}
        within = _within(lies[other], places)
        for i, name in enumerate(found.names):
            position = {axis: f"{value:.4f}" for axis, value in zip("xyz", in_itk[i], strict=True)}
            rows.append(
                {"of": side, "point": name, **position, "inside": "yes" if within[i] else "no"}
                | {"residual_mm": f"{float(residual[i]):.4f}"}
                | ({"error_mm": f"{error[i]:.4f}"} if i in error else {})
            )
    put_rows(folder.parent / TABLE, COLUMNS, folder.name, rows)
    return {"tre_mm": f"{errors['fixed'].mean():.4f}"} if len(errors.get("fixed", ())) else {}


def _same_names(files: dict[str, PointFile], key: str) -> list[tuple[int, int]]:
    """Numbers of the landmarks that both files have: by name."""
    if len(files) < 2:
        return []
    own, (other,) = files[key].names, [found.names for name, found in files.items() if name != key]
    place = {name: number for number, name in enumerate(other) if other.count(name) == 1}
    return [(i, place[name]) for i, name in enumerate(own) if name in place and own.count(name) == 1]


def _moved(matrix: np.ndarray, positions: np.ndarray) -> np.ndarray:
    return positions @ matrix[:3, :3].T + matrix[:3, 3]


def _from_itk(found: PointFile, scan: ScanGeometry, path: str) -> np.ndarray:
    """Positions, ``(K, 3)``, in the scan's own space, where ITK and so 3D Slicer place it elsewhere."""
    places = _moved(np.linalg.inv(scan.to_itk()), found.positions)
    within = _within(scan, places)
    if not within.any():
        raise InputError(
            f"none of the {len(places)} landmarks of {path} lies in its scan: give those of the right scan (--points "
            "of the moving one, --fixed_points of the fixed one), in the right space (RAS or LPS)"
        )
    if not within.all():
        print(f"{path}: {int((~within).sum())} of {len(places)} landmarks lie outside their scan", flush=True)
    return places


def _within(scan: ScanGeometry, places: np.ndarray) -> np.ndarray:
    """Which positions, ``(K, 3)`` in millimetres, lie in the scan's voxels."""
    voxels = _moved(np.linalg.inv(scan.affine), places)
    return np.all((voxels >= -0.5) & (voxels <= np.array(scan.size[:3]) - 0.5), axis=1)


def _tell_unresolved(path: str, names: list[str], residual: torch.Tensor) -> None:
    off = [name for name, value in zip(names, residual.tolist(), strict=True) if value > UNRESOLVED]
    if off:
        print(
            f"{path}: the map cannot be inverted at {len(off)} of {len(names)} landmarks, as {off[0]} "
            f"(off by {float(residual.max()):.2f} mm at most, see points.csv): look at them",
            flush=True,
        )
