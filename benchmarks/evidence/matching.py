# SPDX-License-Identifier: Apache-2.0

"""What the matching heads find: labels carried over, and a known rotation."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scripts.evaluation import common_structures, folded_percentage, label_dice
from scripts.matching import MatchingInferer
from scripts.networks import GVSL
from scripts.spatial import affine_about_centre, affine_displacement, inside_volume, linear_matrix, warp

from .cohorts import Cohort
from .results import Value


def propagation(network: GVSL, cohort: Cohort, atlases: int, **settings: Any) -> list[Value]:
    """
    Dice of labels carried from labelled subjects to each held-back scan, before matching, by the affine map alone and
    by the whole match, and the share of folded voxels; means over the atlases.

    Args:
        network: matches.
        cohort: the set.
        atlases: number of training subjects whose first scan is carried over.
        settings: see :class:`~scripts.matching.MatchingInferer`.
    """
    sources = {scan["subject"]: scan for scan in reversed(cohort.labelled(str(atlases)))}.values()
    match = MatchingInferer(**settings)
    values = []
    for scan in cohort.testing:
        rows = []
        for source in sources:
            with torch.no_grad():
                found = match(scan["image"][None], network, source["image"][None])
            label, reference = source["label"][None], scan["label"][None]
            if "drawn" in scan:
                label, reference = common_structures(label, reference)
            affine = affine_displacement(found["affine"], label.shape[2:])
            carried = {
                "before": label,
                "affine": warp(label, affine, mode="nearest"),
                "after": warp(label, found["displacement"], mode="nearest"),
            }
            row = {f"dice_{name}": float(label_dice(one, reference)) for name, one in carried.items()}
            rows.append(row | {"folded_percentage": float(folded_percentage(found["displacement"]))})
        values += [Value(name, scan["name"], float(np.mean([row[name] for row in rows]))) for name in rows[0]]
    return values


def rotation(network: GVSL, cohort: Cohort, seed: int, largest: float) -> list[Value]:
    """
    A scan and its own copy, turned by a known random rotation: mean error of the displacement inside the field of view,
    before (the displacement itself) and after matching, in millimetres; and the error of the affine map's rotation.

    Args:
        network: matches.
        cohort: the set.
        seed: of the rotations.
        largest: angle about each axis, in degrees.
    """
    generator = torch.Generator().manual_seed(seed)
    spacing = torch.tensor(cohort.spacing).reshape(1, -1, 1, 1, 1)
    values = []
    for scan in cohort.testing:
        image = scan["image"][None]
        size = image.shape[2:]
        angles = (2 * torch.rand(1, 3, generator=generator) - 1) * np.deg2rad(largest)
        linear = linear_matrix(angles, torch.ones(1, 3), torch.zeros(1, 6))
        true = affine_displacement(affine_about_centre(linear, torch.zeros(1, 3), size, cohort.spacing), size)
        with torch.no_grad():
            found = network(warp(image, true, padding_mode="border"), image)
        inside = inside_volume(true).flatten()
        for name, error in {"error_before": true, "error_after": found["displacement"] - true}.items():
            distance = (error * spacing).square().sum(dim=1).sqrt().flatten()[inside]
            values.append(Value(name, scan["name"], float(distance.mean())))
        scale = spacing.flatten()
        in_mm = found["affine"][0, :, :3] * scale[:, None] / scale
        for name, matrix in {"angle_before": torch.eye(3), "angle_after": in_mm}.items():
            u, _, v = torch.linalg.svd(matrix)
            cosine = (torch.trace((u @ v).T @ linear[0]) - 1) / 2
            values.append(Value(name, scan["name"], float(torch.rad2deg(cosine.clamp(-1, 1).arccos()))))
    return values
