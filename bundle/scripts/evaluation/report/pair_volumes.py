# SPDX-License-Identifier: Apache-2.0
"""The images of the few pairs that a page shows, matched once more: an evaluation keeps none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from monai.data import list_data_collate
from monai.engines import SupervisedEvaluator
from monai.networks.utils import eval_mode

from ...spatial.label_sampling import warp_labels
from ..structures import number_structures


def pair_volumes(
    engine: SupervisedEvaluator, number: int, groups: Sequence[Sequence[int]] = ()
) -> dict[str, np.ndarray]:
    """
    Args:
        engine: the evaluator, whose data set gives the same pair for the same number.
        number: of the pair.
        groups: for each structure that is shown the label codes that make it up.

    Returns:
        ``fixed``, ``moving``, ``warped``, ``corrupted`` and ``restored`` ``(D, H, W)``, ``displacement`` ``(3, D, H,
        W)`` in voxels, and where both scans have labels ``fixed_label``, ``moving_label`` and ``carried_label``.
    """
    data = list_data_collate([engine.data_loader.dataset[number]])  # type: ignore[union-attr]
    fixed, moving, corrupted = (
        torch.as_tensor(data[key]).to(engine.state.device) for key in ("image", "moving", "corrupted")
    )
    with eval_mode(engine.network):
        found = engine.inferer(fixed, engine.network, moving)
        restored = engine.network(corrupted)
    field = torch.as_tensor(found["displacement"])
    images = {
        "fixed": fixed,
        "moving": moving,
        "warped": found["warped"],
        "corrupted": corrupted,
        "restored": restored,
    }
    if groups and "image_label" in data and "moving_label" in data:
        images["fixed_label"] = number_structures(torch.as_tensor(data["image_label"]), groups)
        label = number_structures(torch.as_tensor(data["moving_label"]), groups)
        images |= {"moving_label": label, "carried_label": warp_labels(label.to(field), field)}
    volumes = {name: torch.as_tensor(image)[0, 0].detach().float().cpu().numpy() for name, image in images.items()}
    return {**volumes, "displacement": field[0].detach().float().cpu().numpy()}
