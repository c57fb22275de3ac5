# Copyright (c) GVSL bundle contributors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Weights that a child bundle begins with: a pre-trained backbone under an untrained last layer."""

from __future__ import annotations

from pathlib import Path

import torch
from monai.bundle import ConfigParser
from scripts.checkpoints import load_file, load_weights, save_atomically
from scripts.errors import InputError
from scripts.transfer import backbone_weights


def write_start(folder: Path, model: Path, seed: int = 0) -> None:
    """
    Write ``models/model.pt``, which fills the network of ``inference.json`` exactly.

    Args:
        folder: of the bundle.
        model: ``model.pt`` of a pre-training.
        seed: of the last layer.

    Raises:
        InputError: when the weights do not cover the backbone.
    """
    parser = ConfigParser()
    parser.read_config(str(folder / "configs" / "inference.json"))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = parser.get_parsed_content("network_def")
    try:
        load_weights(network.backbone, backbone_weights(load_file(model), model), model)
    except InputError as error:
        raise InputError(f"{error} (--features must be those of {model})") from error
    save_atomically(network.state_dict(), folder / "models" / "model.pt")
