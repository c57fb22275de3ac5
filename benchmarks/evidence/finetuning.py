# SPDX-License-Identifier: Apache-2.0

"""Fine-tuning with few labelled subjects."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from scripts.networks import GVSL, UNetBackbone
from scripts.probing import FineTuning

from .cohorts import Cohort
from .pseudo_labels import carried_labels, weighted_loss
from .results import Value


def fine_tuning(
    network: GVSL,
    fresh: GVSL,
    cohort: Cohort,
    labelled: str,
    seed: int,
    carried: int = 0,
    global_matches: int = 1,
    both_ways: bool = False,
    weighted: bool = True,
    **settings: Any,
) -> list[Value]:
    """
    Dice of each held-back scan after fine-tuning all weights, the mean on the way, and the first step measured at
    which it has reached 90 % of its final value.

    Args:
        network: the start; it is left as it was.
        fresh: an untrained network.
        cohort: the set.
        labelled: number of labelled subjects, or "all".
        seed: of the order of the scans.
        carried: unlabelled scans that the network carries the labels to first, to learn from them too.
        global_matches: of the carrying, see :class:`~scripts.matching.MatchingInferer`.
        both_ways: of the carrying.
        weighted: count voxels with carried labels by their confidence; else all alike, as ``make child`` does.
        settings: see :class:`~scripts.probing.FineTuning`.
    """
    train = FineTuning(weighted_loss, **settings)
    scans = cohort.labelled(labelled)
    if carried:
        scans = carried_labels(network, cohort, labelled, carried, global_matches, both_ways)
        if not weighted:
            scans = [{key: value for key, value in scan.items() if key != "confidence"} for scan in scans]
    start, untrained = (cast("UNetBackbone", one.backbone) for one in (network, fresh))
    by_step, _ = train(start, untrained, scans, cohort.testing, len(cohort.names), seed)
    curve = {step: float(np.mean(list(values.values()))) for step, values in by_step.items()}
    last = max(curve)
    reached = next(step for step, value in curve.items() if value >= 0.9 * curve[last])
    return [
        *(Value("dice", name, value) for name, value in by_step[last].items()),
        *(Value("dice_at_step", str(step), value) for step, value in curve.items()),
        Value("steps_to_90_percent", "", reached),
    ]
