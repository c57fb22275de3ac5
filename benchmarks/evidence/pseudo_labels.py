# SPDX-License-Identifier: Apache-2.0

"""Labels carried from the labelled scans to unlabelled ones, and a loss that counts them by confidence."""

from __future__ import annotations

from typing import Any

import torch
from monai.losses import DiceLoss
from scripts.losses import LocalNCCLoss
from scripts.matching import MatchingInferer
from scripts.matching.label_vote import count_votes
from scripts.networks import GVSL
from scripts.spatial import inside_volume, warp
from torch.nn import functional

from .cohorts import Cohort


@torch.no_grad()
def carried_labels(
    network: GVSL,
    cohort: Cohort,
    labelled: str,
    most: int,
    global_matches: int = 1,
    both_ways: bool = False,
    window: int = 5,
) -> list[dict[str, Any]]:
    """
    The labelled scans, each as often as there are others, and up to ``most`` further training scans with the labels of
    the labelled ones carried over: ``label``, that of the largest vote, and ``confidence``, its share of the votes
    times the squared local NCC there, as :class:`~scripts.matching.label_vote.LabelVote` weights atlases. With partial
    labels a scan votes on what was drawn in it, and ``drawn`` are the structures that any labelled scan has.

    Args:
        network: matches.
        cohort: the set; labels of its unlabelled scans are not looked at.
        labelled: number of labelled subjects.
        most: scans to carry labels to.
        global_matches: see :class:`~scripts.matching.MatchingInferer`.
        both_ways: see there.
        window: of the local NCC.
    """
    sources = cohort.labelled(labelled)
    known = {scan["name"] for scan in sources}
    others = [scan for scan in cohort.training if scan["name"] not in known][:most]
    ncc, classes = LocalNCCLoss(window), len(cohort.names) + 1
    match = MatchingInferer(global_matches=global_matches, both_ways=both_ways)
    told = torch.stack([source.get("drawn", torch.ones(classes - 1)) for source in sources])
    drawn = {"drawn": told.amax(dim=0)} if "drawn" in sources[0] else {}
    carried = []
    for scan in others:
        votes: dict[int, torch.Tensor] = {}
        heard: dict[int, torch.Tensor] = {}
        total = torch.zeros(1)
        for source, structures in zip(sources, told, strict=True):
            found = match(scan["image"][None], network, source["image"][None])
            field = found["displacement"]
            alike = ncc.at_voxels(found["warped"], scan["image"][None], inside_volume(field)).clamp(1e-3, 1)
            truth = functional.one_hot(source["label"][0].long(), classes).movedim(-1, 0)[None].float()
            shares, total = alike * warp(truth, field), total + alike
            for code in [0, *(structures.nonzero().flatten() + 1).tolist()]:
                votes[code] = votes.get(code, torch.zeros(1)) + shares[0, code]
                heard[code] = heard.get(code, torch.zeros(1)) + alike[0, 0]
        counted = count_votes(votes, total[0, 0], heard if drawn else None)
        codes = torch.as_tensor(list(counted))
        best, winner = torch.stack(list(counted.values())).max(dim=0)
        label, confidence = codes[winner][None], (best * total[0, 0] / len(sources))[None]
        carried.append({**scan, **drawn, "label": label.to(scan["label"]), "confidence": confidence})
    return [*sources * max(1, len(carried) // len(sources)), *carried]


def weighted_loss(logits: torch.Tensor, label: torch.Tensor, confidence: torch.Tensor | None = None) -> torch.Tensor:
    """
    Dice and cross-entropy, as ``monai.losses.DiceCELoss`` without background in the Dice, each voxel by its confidence.

    Args:
        logits: ``(1, K, D, H, W)``.
        label: ``(1, 1, D, H, W)``.
        confidence: ``(1, 1, D, H, W)``; None for 1 everywhere.
    """
    weight = torch.ones_like(label, dtype=logits.dtype) if confidence is None else confidence.to(logits)
    truth = functional.one_hot(label[:, 0].long(), logits.shape[1]).movedim(-1, 1).to(logits)
    dice = DiceLoss(include_background=False)(logits.softmax(dim=1) * weight, truth * weight)
    entropy = functional.cross_entropy(logits, label[:, 0].long(), reduction="none")
    return dice + (entropy * weight[:, 0]).sum() / weight.sum().clamp(min=1e-6)
