# SPDX-License-Identifier: Apache-2.0

"""The configuration read from a network makes the same network again."""

from __future__ import annotations

import json

import pytest
import torch
from monai.bundle import ConfigParser
from scripts.errors import InputError
from scripts.networks import GVSL, RestorationHead, UNetBackbone, ZMatchingHead, another, describe
from torch import nn


@pytest.mark.parametrize("overlays", [(), ("convolution_head",), ("cascade_head",), ("correlation_head",), ("paper",)])
def test_describes_what_a_configuration_has_made(config_files, overlays):
    parser = ConfigParser()
    parser.read_config(config_files(*overlays))
    parser.update({"features": [4, 8], "pixdim": [1.0, 2.0, 3.0]})
    network = parser.get_parsed_content("network_def")
    written = json.loads(json.dumps(describe(network, {"spacing": "pixdim"})))
    assert written["_target_"] == "scripts.networks.GVSL"
    spaced = "spacing" in written["matching_head"]["global_matching"]
    assert spaced == ("paper" in overlays or "correlation_head" in overlays)
    assert not spaced or written["matching_head"]["global_matching"]["spacing"] == "@pixdim"
    again = ConfigParser({"network": written, "pixdim": [4.0, 5.0, 6.0]}).get_parsed_content("network")
    assert str(again) == str(network)
    assert {name: w.shape for name, w in again.state_dict().items()} == {
        name: w.shape for name, w in network.state_dict().items()
    }
    assert not spaced or again.matching_head.global_matching.spacing == (4, 5, 6)
    assert describe(again, {"spacing": "pixdim"}) == describe(network, {"spacing": "pixdim"})


def test_a_part_of_another_kind_is_named(capsys):
    """Nothing is described by halves."""
    network = GVSL(UNetBackbone(features=(4, 8)), ZMatchingHead(None, nn.Sequential()), RestorationHead(4, 1, 8))
    assert describe(network) is None
    assert "Sequential does not know its arguments" in capsys.readouterr().out


def test_weights_and_copies_are_untouched(config_files):
    """What is remembered is no parameter, and a copy describes itself."""
    import copy

    parser = ConfigParser()
    parser.read_config(config_files())
    parser.update({"features": [4, 8]})
    network = parser.get_parsed_content("network_def")
    twin = copy.deepcopy(network)
    twin.backbone = type(network.backbone)(features=(2, 4))
    assert describe(twin)["backbone"]["features"] == [2, 4]
    assert not any("arguments" in name for name in network.state_dict())
    assert all(isinstance(value, torch.Tensor) for value in network.state_dict().values())


def test_another_one_has_weights_of_its_own():
    backbone = UNetBackbone(in_channels=2, features=(4, 8))
    torch.manual_seed(1)
    made = another(backbone)
    torch.manual_seed(1)
    same = another(backbone)
    assert str(made) == str(backbone)
    assert not torch.equal(made.stem.conv_0.conv.weight, backbone.stem.conv_0.conv.weight)
    assert torch.equal(made.stem.conv_0.conv.weight, same.stem.conv_0.conv.weight)
    with pytest.raises(InputError, match=r"a second GVSL cannot be made \(Sequential does not know its arguments\)"):
        another(GVSL(backbone, ZMatchingHead(None, nn.Sequential()), RestorationHead(4, 1, 8)))
