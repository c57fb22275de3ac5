# SPDX-License-Identifier: Apache-2.0

"""Fine-tuning with few labelled subjects."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from monai.losses import DiceCELoss
from scripts.evaluation import label_dice
from scripts.finetuning import SegmentationNetwork, last_levels
from scripts.networks import UNetBackbone

from .cohorts import Cohort, local_reader
from .probes import fit_probe
from .results import Value


def fine_tuning(
    backbone: UNetBackbone,
    cohort: Cohort,
    labelled: str,
    seed: int,
    steps: int,
    interval: int,
    learning_rate: float,
    head_learning_rate: float,
    probe: Mapping[str, Any],
    fresh: UNetBackbone | None = None,
    fresh_levels: int = 0,
    warm_up: int = 0,
) -> list[Value]:
    """
    Dice of each held-back scan after fine-tuning all weights, the mean on the way, and the first step measured at
    which it has reached 90 % of its final value.

    Whole scans, no augmentation, no choice of the best step: the arms differ in the start alone. The last layer starts
    as the linear probe of the features (Kumar et al., ICLR 2022, "linear probing then fine-tuning"): otherwise most of
    a short training goes into that layer, and the scale of the features decides how fast.

    Args:
        backbone: the start; it is left as it was.
        cohort: the set.
        labelled: number of labelled subjects, or "all".
        seed: of the probe and the order of the scans.
        steps: each of one scan.
        interval: steps between two measurements.
        learning_rate: of the backbone, at the start; it falls to 0 by a cosine.
        head_learning_rate: of the last layer.
        probe: settings of :func:`~evidence.probes.fit_probe`.
        fresh: an untrained backbone.
        fresh_levels: levels of the decoder, from full size down, that start as the untrained one's.
        warm_up: steps in which the rates rise from almost 0; Adam's first steps are as large for a gradient of noise,
            and the probe that the last layer starts as is lost in them.
    """
    backbone = copy.deepcopy(backbone)
    if fresh is not None:
        backbone.load_state_dict(last_levels(fresh, fresh_levels), strict=False)
    start = fit_probe(local_reader(backbone), cohort, labelled, seed, **probe)
    model = SegmentationNetwork(backbone, len(cohort.names) + 1).train()
    model.head.load_state_dict(start.state_dict())
    scans = cohort.labelled(labelled)
    rng = np.random.default_rng(seed)
    rates = {model.backbone: learning_rate, model.head: head_learning_rate}
    optimiser = torch.optim.Adam([{"params": part.parameters(), "lr": rate} for part, rate in rates.items()])
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1, (step + 1) / (warm_up + 1)) * (1 + math.cos(math.pi * step / steps)) / 2
    )
    loss = DiceCELoss(to_onehot_y=True, softmax=True, include_background=False)

    def measured() -> list[float]:
        with torch.no_grad():
            found = [model(scan["image"][None]).argmax(dim=1, keepdim=True) for scan in cohort.testing]
        return [float(label_dice(one, s["label"][None])) for one, s in zip(found, cohort.testing, strict=True)]

    curve: list[tuple[int, float]] = []
    final: list[float] = []
    for step in range(1, steps + 1):
        scan = scans[rng.integers(len(scans))]
        optimiser.zero_grad()
        loss(model(scan["image"][None]), scan["label"][None]).backward()
        optimiser.step()
        schedule.step()
        if step % interval == 0 or step == steps:
            final = measured()
            curve.append((step, float(np.mean(final))))
    reached = next(step for step, value in curve if value >= 0.9 * curve[-1][1])
    return [
        *(Value("dice", scan["name"], value) for scan, value in zip(cohort.testing, final, strict=True)),
        *(Value("dice_at_step", str(step), value) for step, value in curve),
        Value("steps_to_90_percent", "", reached),
    ]
