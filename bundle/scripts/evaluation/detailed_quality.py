# SPDX-License-Identifier: Apache-2.0
"""Measures of a match that are too slow for training: Dice and surface distance by structure, evenness."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from monai.metrics import compute_dice, compute_hausdorff_distance

from ..losses.local_ncc import LocalNCCLoss
from ..networks.gvsl import GVSL
from ..spatial.displacement import jacobian_determinant
from ..spatial.label_sampling import warp_labels
from .metrics import MatchingQuality
from .structures import common_structures, number_structures


class DetailedQuality(MatchingQuality):
    """
    :class:`~scripts.evaluation.MatchingQuality` and what is too slow for training: Dice and 95 % Hausdorff distance of
    each structure, standard deviation of the logarithm of the Jacobian determinant, restoration error.

    Args:
        network: restores the corrupted image.
        groups: for each structure the label codes that make it up; empty without labels.
        spacing: voxel size in millimetres.
        ncc: the local NCC to report.
        partial: score the structures that both label maps of a pair show alone, see :func:`common_structures`.
    """

    def __init__(
        self,
        network: GVSL,
        groups: Sequence[Sequence[int]] = (),
        spacing: Sequence[float] = (1.0, 1.0, 1.0),
        ncc: LocalNCCLoss | None = None,
        partial: bool = False,
    ) -> None:
        super().__init__(ncc)
        self.network, self.groups, self.spacing = network, list(groups), list(spacing)
        self.partial = partial

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """
        Args:
            data: see the base class, with ``corrupted`` ``(B, 1, D, H, W)``, the moving image after the appearance
                transformations.

        Returns:
            the same with ``log_jacobian_std``, ``restoration_error_before`` and ``_after`` ``(B, 1)``, ``restored``
            ``(B, 1, D, H, W)`` and, where both scans have labels, ``structure_dice_before`` / ``_after`` and
            ``structure_hd95_before`` / ``_after`` ``(B, K)``, NaN where a structure is in neither or (distance) in one
            alone.
        """
        labels = [key for key in ("image_label", "moving_label") if key in data and self.groups]
        data = {**data, **{key: number_structures(data[key], self.groups) for key in labels}}
        if self.partial and len(labels) == 2:
            pairs = [common_structures(*(data[key][number] for key in labels)) for number in range(len(data["image"]))]
            data |= {key: torch.stack(parts) for key, parts in zip(labels, zip(*pairs, strict=True), strict=True)}
        result = super().__call__(data)
        displacement = data["pred"]["displacement"]
        determinant = jacobian_determinant(displacement).flatten(1).clamp(min=1e-3)
        result["log_jacobian_std"] = determinant.log().std(dim=1)[:, None]
        clean, corrupted = (data[key].to(displacement) for key in ("moving", "corrupted"))
        with torch.no_grad():
            result["restored"] = self.network(corrupted)
        for name, image in {"before": corrupted, "after": result["restored"]}.items():
            result[f"restoration_error_{name}"] = (image - clean).square().flatten(1).mean(dim=1)[:, None]
        if len(labels) == 2:
            fixed, moving = (data[key].to(displacement) for key in labels)
            result |= self._structures(fixed, {"before": moving, "after": warp_labels(moving, displacement)})
        return result

    def _structures(self, reference: torch.Tensor, found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        measured: dict[str, torch.Tensor] = {}
        for name, label in found.items():
            dice, distance = structure_quality(label, reference, len(self.groups), self.spacing)
            measured |= {f"structure_dice_{name}": dice, f"structure_hd95_{name}": distance}
        return measured


def structure_quality(
    label: torch.Tensor, reference: torch.Tensor, count: int, spacing: Sequence[float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Dice and 95 % Hausdorff distance of each structure.

    Args:
        label: ``(B, 1, D, H, W)``, numbers of the structures from 1, 0 elsewhere.
        reference: of the same shape.
        count: of the structures.
        spacing: voxel size in millimetres.

    Returns:
        ``(B, count)`` each; NaN where a structure is in neither or (distance) in one alone.
    """
    dice, distance = reference.new_full((2, len(reference), count), torch.nan)
    present = torch.unique(torch.cat([reference, label]).long())
    for number in present[present > 0].tolist():  # masks of those found alone: 148 of them fill the memory
        masks, truth = (label == number).float(), (reference == number).float()
        both = (masks + truth).flatten(1).any(dim=1)
        overlap = compute_dice(masks, truth, include_background=True, ignore_empty=False)[:, 0]
        dice[:, number - 1] = torch.where(both, overlap, torch.nan)
        with warnings.catch_warnings():  # a structure missing in one of the two gives NaN, which is meant
            warnings.simplefilter("ignore")
            apart = compute_hausdorff_distance(masks, truth, include_background=True, percentile=95, spacing=spacing)
        distance[:, number - 1] = torch.where(apart[:, 0].isfinite(), apart[:, 0], torch.nan)
    return dice, distance
