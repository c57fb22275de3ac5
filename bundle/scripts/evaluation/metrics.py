# SPDX-License-Identifier: Apache-2.0
"""How good a match is: measured on held-back pairs, never part of a loss."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Any

import torch
from ignite.metrics import Average
from monai.networks.utils import one_hot

from ..losses.gvsl_loss import GVSLLoss
from ..losses.local_ncc import LocalNCCLoss
from ..spatial.displacement import inside_volume, jacobian_determinant
from ..spatial.label_sampling import warp_labels


def label_dice(prediction: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """
    Dice of label maps, averaged over the structures found in either. MONAI's ``compute_dice`` cannot do
    both: with ``ignore_empty`` it leaves out a structure that the prediction alone shows, which is 0 here; without, it
    counts as 1 one that neither shows, which is left out here.

    Args:
        prediction: ``(B, 1, D, H, W)``, any whole numbers, 0 for the background.
        reference: ``(B, 1, D, H, W)``.

    Returns:
        ``(B,)``; 1 where both are empty.
    """
    codes, numbered = torch.unique(torch.cat([prediction, reference]).round().long(), return_inverse=True)
    masks = one_hot(numbered, max(2, len(codes)))[:, : len(codes)][:, codes != 0]
    first, second = masks.flatten(2).chunk(2)
    dice = 2 * (first * second).sum(dim=2) / (first.sum(dim=2) + second.sum(dim=2))  # NaN where found in neither
    return dice.nanmean(dim=1).nan_to_num(1.0)


def folded_percentage(displacement: torch.Tensor) -> torch.Tensor:
    """
    Share of voxels at which the map folds.

    Args:
        displacement: ``(B, N, D, H, W)`` in voxels.

    Returns:
        ``(B,)``: percentage of voxels whose Jacobian determinant is 0 or below.
    """
    return 100 * (jacobian_determinant(displacement) <= 0).flatten(1).float().mean(dim=1)


class MatchingQuality:
    """
    Measures of a batch of matched pairs, as a postprocessing step of an evaluator that does not decollate.

    Args:
        ncc: the local NCC to report, as a similarity (1 for equal images, 0 for unrelated ones).
    """

    names = ("ncc_before", "ncc_after", "folded_percentage")
    label_names = ("dice_before", "dice_after")

    def __init__(self, ncc: LocalNCCLoss | None = None) -> None:
        self.ncc = ncc or LocalNCCLoss()

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """
        Args:
            data: ``image`` (fixed) and ``moving`` ``(B, 1, D, H, W)``, ``pred`` as the network returned it and possibly
                ``image_label`` and ``moving_label``.

        Returns:
            the same with ``names`` (and ``label_names``) added, ``(B, 1)`` each.
        """
        displacement = data["pred"]["displacement"]
        fixed, moving = data["image"].to(displacement), data["moving"].to(displacement)
        measured = {
            "ncc_before": self.ncc.per_image(moving, fixed),
            "ncc_after": self.ncc.per_image(data["pred"]["warped"], fixed, inside_volume(displacement)),
            "folded_percentage": folded_percentage(displacement),
        }
        if "image_label" in data and "moving_label" in data:
            labels = torch.cat([data["image_label"], data["moving_label"]]).round().long()
            codes, numbers = torch.unique(torch.cat([labels.new_zeros(1), labels.flatten()]), return_inverse=True)
            background = torch.searchsorted(codes, torch.zeros_like(codes[:1]))  # its number becomes 0
            numbered = (numbers[1:] - background).reshape(labels.shape).to(displacement)  # codes may be large
            reference, label = numbered.chunk(2)
            measured["dice_before"] = label_dice(label, reference)
            measured["dice_after"] = label_dice(warp_labels(label, displacement), reference)
        return {**data, **{name: value[:, None] for name, value in measured.items()}}


class PairAverage(Average):
    """
    Average of one measure over all pairs (and all ranks), a plain number.

    Args:
        name: of the measure in the engine's output, ``(B, 1)``.
    """

    def __init__(self, name: str) -> None:
        super().__init__(output_transform=itemgetter(name))

    def compute(self) -> float:
        return float(super().compute())


def pair_averages(names: Sequence[str]) -> dict[str, Average]:
    """One :class:`PairAverage` for each measure of :class:`MatchingQuality` that is named."""
    return {name: PairAverage(name) for name in names}


def matching_metrics(scans: Sequence[dict[str, Any]]) -> dict[str, Average]:
    """All measures but the key one, ``ncc_after``; those of labels where every scan has a label."""
    labels = MatchingQuality.label_names if all("label" in scan for scan in scans) else ()
    return pair_averages([*(name for name in MatchingQuality.names if name != "ncc_after"), *labels])


def loss_averages(loss: GVSLLoss) -> dict[str, Average]:
    """Ignite metrics that average the loss's unweighted terms over an epoch, from the trainer's output."""
    return {name: Average(output_transform=lambda output, name=name: output["losses"][name]) for name in loss.terms}
