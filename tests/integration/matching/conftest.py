# SPDX-License-Identifier: Apache-2.0

"""Phantoms, and a model that moves them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from make_phantoms import main as make_phantoms
from matching_runs import made_network


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms")
    assert make_phantoms([str(folder), "--subjects", "5", "--spacing", "10"]) == 0
    return folder


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    """An untrained network whose heads are shaken, so that its maps are no identities."""
    torch.manual_seed(0)
    network = made_network()
    with torch.no_grad():
        network.matching_head.global_matching.parameters_of_map.weight.normal_(std=0.05)
        network.matching_head.local_matching.displacement.weight.normal_(std=0.05)
    path = tmp_path_factory.mktemp("model") / "model.pt"
    torch.save(network.state_dict(), path)
    return path
