# SPDX-License-Identifier: Apache-2.0

"""Pairs whose moving scan is moved by a known map, and what of it a match leaves."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from scripts.matching import FinerGrid
from scripts.spatial import affine_about_centre, homogeneous, linear_matrix, transform_points

from .bundle_match import Pair


def known_map(
    size: Sequence[int],
    spacing: Sequence[float],
    degrees: Sequence[float] = (0.0, 0.0, 0.0),
    shift: Sequence[float] = (0.0, 0.0, 0.0),
    scale: float = 1.0,
) -> torch.Tensor:
    """
    Args:
        size: of the prepared grid.
        spacing: its voxels' edges in millimetres.
        degrees: rotations about the three axes.
        shift: along the axes, as shares of the field.
        scale: factor of the scan's size.

    Returns:
        ``(4, 4)``, voxels of the moved scan to voxels of the scan as it is, about the centre of the field.
    """
    angles = torch.tensor([list(degrees)], dtype=torch.float64).deg2rad()
    linear = linear_matrix(angles, torch.full((1, 3), 1 / scale).double(), torch.zeros(1, 6).double())
    field = torch.tensor(list(size)).double() * torch.tensor(list(spacing)).double()
    return homogeneous(affine_about_centre(linear, torch.tensor([list(shift)]).double() * field, size, spacing)[0])


def moved(pair: Pair, known: torch.Tensor) -> Pair:
    """A pair whose moving scan, prepared, is moved by a known map: sampled once, in its own grid."""
    image, original = pair.batch["moving"], pair.batch["original_moving"]
    seen = image.clone()
    seen[:] = FinerGrid(1.0, list(image.shape[2:]), known).image(image, original)
    return Pair(pair.fixed, pair.moving, {**pair.batch, "moving": seen})


def what_is_left(
    plain: torch.Tensor, found: torch.Tensor, known: torch.Tensor, spacing: Sequence[float], seen: torch.Tensor
) -> dict[str, float]:
    """
    How far a match of the moved scan is from the match of the scan as it is.

    Args:
        plain: affine map found of the scan as it is, ``(3, 4)`` in prepared voxels.
        found: of the moved scan.
        known: see :func:`known_map`.
        spacing: edges of the prepared voxels in millimetres.
        seen: ``(D, H, W)``, where the fixed scan shows tissue.

    Returns:
        ``degrees`` of rotation; ``scale``, percent; over the tissue that the moved scan still shows ``shift``, the mean
        along the axis where it is largest, in percent of the field, and ``mm``, the mean distance.
    """
    voxel = torch.diag(torch.tensor([*spacing, 1.0]).double())
    one, other = homogeneous(plain.double()), known @ homogeneous(found.double())
    left = (voxel @ other @ torch.linalg.inv(voxel @ one))[:3, :3]
    u, _, v = torch.linalg.svd(left)
    cosine = (float(torch.trace(u @ v)) - 1) / 2
    points = seen.nonzero().T.double()
    places = transform_points(torch.linalg.inv(known) @ homogeneous(plain.double()), points)
    last = torch.tensor(list(seen.shape)).double()[:, None] - 1
    points = points[:, ((places >= 0) & (places <= last)).all(dim=0)]
    apart = transform_points(voxel @ other, points) - transform_points(voxel @ one, points)
    field = torch.tensor(list(seen.shape)).double() * torch.tensor(list(spacing)).double()
    return {
        "degrees": math.degrees(math.acos(max(-1.0, min(1.0, cosine)))),
        "scale": 100 * abs(float(torch.linalg.det(left).abs()) ** (1 / 3) - 1),
        "shift": 100 * float((apart.mean(dim=1).abs() / field).max()),
        "mm": float(apart.norm(dim=0).mean()),
    }
