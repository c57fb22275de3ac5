# SPDX-License-Identifier: Apache-2.0
"""What the settings of the configurations may be: one table, and the check that refuses what does not fit it."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch

from .errors import InputError, check_flags, check_numbers, check_orientation


class Numbers(NamedTuple):
    """
    A number, or a list of numbers.

    Args:
        lowest: smallest number allowed.
        whole: whole numbers only.
        length: None for a single number; else a list of so many, 0 for a list of any length.
        optional: whether it may be None.
    """

    lowest: float = 0
    whole: bool = False
    length: int | None = None
    optional: bool = False


COUNT, INDEX, FRACTION = Numbers(1, whole=True), Numbers(0, whole=True), Numbers(0)
FLAGS = (
    (
        "resume",
        "skip_bad",
        "partial_labels",
        "label_maps",
        "dry_run",
        "activation_checkpointing",
        "symmetric",
        "amp",
        "bfloat16",
    )  # of a training
    + ("load_pretrain", "held_back", "report", "check_mirror", "both_ways")  # of a model in use
)
WHERE_FAST = "bfloat16"  # may be None too: where the device is fast at it
NUMBERS = {
    "epochs": COUNT,
    "epoch_length": COUNT,
    "batch_size": COUNT,
    "val_interval": COUNT,
    "picture_interval": COUNT,
    "accumulation_steps": COUNT,
    "keep_checkpoints": COUNT,
    "validation_pairs": Numbers(1, whole=True, optional=True),
    "seed": INDEX,
    "num_workers": INDEX,
    "checkpoint_interval": INDEX,
    "warmup_steps": INDEX,
    "learning_rate": FRACTION,
    "head_learning_rate": FRACTION,
    "clip_norm": Numbers(0, optional=True),
    "place_weight": FRACTION,
    "known_map_weight": FRACTION,
    "known_share": FRACTION,
    "matching_weight": FRACTION,
    "smoothness_weight": FRACTION,
    "restoration_weight": FRACTION,
    "redundancy_weight": FRACTION,
    "validation_fraction": FRACTION,
    "features": Numbers(1, whole=True, length=0),
    "spatial_size": Numbers(1, whole=True, length=3),
    "patch_size": Numbers(1, whole=True, length=3),
    "pixdim": Numbers(0.001, length=3),
    "window": Numbers(-math.inf, length=2),
    "percentiles": Numbers(0, length=2),
}
"""Settings that are numbers, by id; pre-training and fine-tuning share the table."""


def check_settings(**settings: Any) -> None:
    """
    Refuse settings that are not what they should be.

    Args:
        settings: by id; each must be in the table.

    Raises:
        InputError: naming the first setting that does not fit, and what it should be.
    """
    for name, value in settings.items():
        if name in FLAGS:
            check_flags({} if name == WHERE_FAST and value is None else {name: value})
        elif name == "orientation":
            check_orientation(value)
        elif name == "device":
            check_device(value)
        else:
            lowest, whole, length, optional = NUMBERS[name]
            if value is not None or not optional:
                check_numbers({name: value}, lowest, whole, length)


def check_device(device: torch.device | str) -> None:
    """
    Refuse a device that is none, or that this machine does not have.

    Args:
        device: as PyTorch names it.

    Raises:
        InputError: naming devices to choose from.
    """
    try:
        torch.empty(0, device=torch.device(device))
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        count = torch.cuda.device_count()
        found = ["cpu", *(f"cuda:{index}" for index in range(count))]
        remedy = f"pass --device {found[-1]}, or leave it out"
        raise InputError(f"device {device} cannot be used, of {', '.join(found)}: {remedy}") from error
