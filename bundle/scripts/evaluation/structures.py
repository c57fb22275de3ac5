# SPDX-License-Identifier: Apache-2.0
"""The structures of a labelled folder, and how well each of them is matched."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from monai.metrics import compute_dice, compute_hausdorff_distance
from monai.networks.utils import one_hot

from ..data.labels import check_label
from ..errors import InputError
from ..losses.local_ncc import LocalNCCLoss
from ..networks.gvsl import GVSL
from ..spatial.displacement import jacobian_determinant
from ..spatial.warp import warp
from .metrics import MatchingQuality


def number_structures(label: torch.Tensor, groups: Sequence[Sequence[int]]) -> torch.Tensor:
    """
    Args:
        label: label map of any shape.
        groups: for each structure the label codes that make it up.

    Returns:
        of the same shape: 1 for the first structure, 2 for the second ..., 0 elsewhere.
    """
    table = {code: number for number, codes in enumerate(groups, start=1) for code in codes}
    found, inverse = torch.unique(label.round().long(), return_inverse=True)
    numbers = torch.as_tensor([table.get(int(code), 0) for code in found], device=label.device)
    return numbers[inverse].to(label.dtype)


def described_structures(
    dataset_dir: str, scans: Sequence[dict[str, Any]], merged: str | None = None
) -> dict[str, list[Any]]:
    """
    The structures of a labelled folder; refuses label maps that do not fit their scans or the description.

    Args:
        dataset_dir: the folder, with a dataset.json.
        scans: its scans.
        merged: name of an entry of dataset.json that merges label codes: a list of ``{"name", "source_values"}``; None
            takes each code of its ``labels`` for a structure.

    Returns:
        ``names`` and ``groups`` (the label codes of each structure), without the background; both empty where not every
        scan has a label map.

    Raises:
        InputError: when dataset.json does not say which structures there are, or a label map does not fit.
    """
    if not all("label" in scan for scan in scans):
        return {"names": [], "groups": []}
    description = Path(dataset_dir) / "dataset.json"
    content = json.loads(description.read_text(encoding="utf-8"))
    try:
        known = {int(code): str(name) for code, name in content["labels"].items()}
        if merged is None:
            names, groups = [known[code] for code in sorted(known) if code], [[code] for code in sorted(known) if code]
        else:
            names = [str(entry["name"]) for entry in content[merged]]
            groups = [[int(code) for code in entry["source_values"]] for entry in content[merged]]
    except (AttributeError, KeyError, ValueError, TypeError) as error:
        wanted = "'labels' that map each code to a name" + (f" and '{merged}' that merges codes" if merged else "")
        raise InputError(f"{description} needs {wanted} ({type(error).__name__} {error})") from error
    for scan in scans:
        check_label(scan["image"], scan["label"], [0, *known])
    return {"names": names, "groups": groups}


class DetailedQuality(MatchingQuality):
    """
    :class:`~scripts.evaluation.MatchingQuality` and what is too slow for training: Dice and 95 % Hausdorff distance of
    each structure, standard deviation of the logarithm of the Jacobian determinant, restoration error.

    Args:
        network: restores the corrupted image.
        groups: for each structure the label codes that make it up; empty without labels.
        spacing: voxel size in millimetres.
        ncc: the local NCC to report.
    """

    def __init__(
        self,
        network: GVSL,
        groups: Sequence[Sequence[int]] = (),
        spacing: Sequence[float] = (1.0, 1.0, 1.0),
        ncc: LocalNCCLoss | None = None,
    ) -> None:
        super().__init__(ncc)
        self.network, self.groups, self.spacing = network, list(groups), list(spacing)

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """
        Args:
            data: see the base class, with ``corrupted`` ``(B, 1, D, H, W)``, the moving image after the appearance
                transformations.

        Returns:
            the same with ``log_jacobian_std``, ``restoration_error`` ``(B, 1)``, ``restored`` ``(B, 1, D, H, W)`` and,
            with labels, ``structure_dice_before`` / ``_after`` and ``structure_hd95_before`` / ``_after`` ``(B, K)``,
            NaN where a structure is in neither or (distance) only one of the two.
        """
        labels = [key for key in ("image_label", "moving_label") if key in data and self.groups]
        data = {**data, **{key: number_structures(data[key], self.groups) for key in labels}}
        result = super().__call__(data)
        displacement = data["pred"]["displacement"]
        determinant = jacobian_determinant(displacement).flatten(1).clamp(min=1e-3)
        result["log_jacobian_std"] = determinant.log().std(dim=1)[:, None]
        with torch.no_grad():
            restored = self.network(data["corrupted"].to(displacement))
        result["restored"] = restored
        error = (restored - data["moving"].to(displacement)).square().flatten(1).mean(dim=1)
        result["restoration_error"] = error[:, None]
        if len(labels) == 2:
            fixed, moving = (data[key].to(displacement) for key in labels)
            carried = warp(moving, displacement, mode="nearest")
            reference, before, after = (
                one_hot(label, len(self.groups) + 1)[:, 1:] for label in (fixed, moving, carried)
            )
            for name, masks in {"before": before, "after": after}.items():
                dice = compute_dice(masks, reference, include_background=True, ignore_empty=False)
                nowhere = (masks + reference).flatten(2).sum(dim=2) == 0
                result[f"structure_dice_{name}"] = dice.masked_fill(nowhere, torch.nan)
                with warnings.catch_warnings():  # a structure missing in one of the two gives NaN, which is meant
                    warnings.simplefilter("ignore")
                    distance = compute_hausdorff_distance(
                        masks, reference, include_background=True, percentile=95, spacing=self.spacing
                    )
                result[f"structure_hd95_{name}"] = torch.where(distance.isfinite(), distance, torch.nan)
        return result
