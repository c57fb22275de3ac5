# SPDX-License-Identifier: Apache-2.0
"""Weights that a child bundle begins with: a pre-trained backbone under an untrained last layer."""

from __future__ import annotations

from pathlib import Path

import torch
from monai.bundle import ConfigParser
from scripts.errors import InputError
from scripts.files import load_file, save_atomically
from scripts.networks import find_weights, load_weights, one_channel_repeated

PRETRAINED = Path(__file__).resolve().parents[2] / "bundle" / "models" / "model.pt"
"""The parent's weights."""


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
        raise InputError(f"{error} (--features must be those of {model})") from error
    (folder / "models").mkdir(exist_ok=True)
    save_atomically(network.state_dict(), folder / "models" / "model.pt")
