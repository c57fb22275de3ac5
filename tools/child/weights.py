# SPDX-License-Identifier: Apache-2.0
"""Weights that a child bundle begins with: a pre-trained backbone under an untrained last layer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from scripts.errors import InputError
from scripts.files import load_file, save_atomically
from scripts.networks import find_weights, load_weights, one_channel_repeated

PRETRAINED = Path(__file__).resolve().parents[2] / "bundle" / "models" / "model.pt"
"""The parent's weights."""


OWN = "scripts.networks.UNetBackbone"
"""The backbone of the templates."""


def backbone_of(model: Path) -> dict[str, Any] | None:
    """
    The backbone of a pre-training, as the ``settings.json`` beside its weights describes it.

    Args:
        model: ``model.pt`` of a pre-training.

    Returns:
        ``_target_`` and arguments; None where nothing describes it.

    Raises:
        InputError: for a file that cannot be read.
    """
    settings = model.parent / "settings.json"
    if not settings.is_file():
        return None
    try:
        network = json.loads(settings.read_text(encoding="utf-8")).get("network_def")
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{settings} cannot be read ({error}): bring back what the training wrote") from error
    return network["backbone"] if isinstance(network, dict) else None


def write_start(folder: Path, model: Path) -> None:
    """
    Write ``models/model.pt``, which fills the network of ``train.json`` exactly. Its last layer is 0 everywhere: it
    finds nothing, and a server's first training fits it.

    Args:
        folder: of the bundle.
        model: ``model.pt`` of a pre-training.

    Raises:
        InputError: when the weights do not cover the backbone.
    """
    parser = ConfigParser()
    parser.read_config(str(folder / "configs" / "train.json"))
    parser["bundle_root"] = str(folder)
    network = parser.get_parsed_content("network_def")
    with torch.no_grad():
        for parameter in network.head.parameters():
            parameter.zero_()
    try:
        weights = find_weights(load_file(model), network.backbone.state_dict(), model)
        load_weights(network.backbone, one_channel_repeated(weights, network.backbone), model)
    except InputError as error:
        remedy = f"--features must be those of {model}"
        if not (model.parent / "settings.json").is_file():
            remedy += "; of another network than the bundle's U-Net, bring its run's settings.json beside it"
        raise InputError(f"{error} ({remedy})") from error
    (folder / "models").mkdir(exist_ok=True)
    save_atomically(network.state_dict(), folder / "models" / "model.pt")
