# SPDX-License-Identifier: Apache-2.0

"""MONAI's and nnU-Net's networks pre-trained by the overlays of their names, and taken out again as they are."""

from __future__ import annotations

import json
from pathlib import Path

import export_backbone
import pytest
import torch
from monai.bundle import ConfigParser
from scripts.files import load_file
from scripts.networks import NetworkBackbone, load_weights

FEATURES = {
    "segresnet": [8, 16, 32, 64],
    "dynunet": [4, 8, 12, 16],
    "basic_unet": [4, 8, 8, 8, 12],
    "swin_unetr": [12, 12, 24, 48, 96, 192],  # half size has as many as full size
    "resenc": [4, 8, 12, 16],
}


@pytest.mark.parametrize("name", FEATURES)
def test_pretrained_and_exported(name, cohort, tmp_path, workflow, config_files):
    pytest.importorskip({"resenc": "dynamic_network_architectures", "swin_unetr": "einops"}.get(name, "monai"))
    size = (
        [40, 40, 40] if name == "swin_unetr" else [24, 24, 24]
    )  # of one voxel at the bottleneck nothing is normalised
    few = {"features": FEATURES[name], "spatial_size": size, "epochs": 1, "epoch_length": 2}
    made = workflow(cohort, tmp_path / "run", overlays=(name,), **few)
    made.initialize()
    before = {key: value.clone() for key, value in made.parser.get_parsed_content("network_def").state_dict().items()}
    made.run()
    model = tmp_path / "run" / "model.pt"
    trained = load_file(model)
    backbone = [key for key in before if key.startswith("backbone.network.")]
    assert sum(not torch.equal(before[key], trained[key]) for key in backbone) > 0.9 * len(backbone)

    assert export_backbone.main([str(model), str(tmp_path / "plain.pt")]) == 0
    parser = ConfigParser()
    parser.read_config([config_files()[0].replace("train.json", "inference.json"), str(tmp_path / "run/settings.json")])
    network = parser.get_parsed_content("network_def")
    load_weights(network, trained, model)
    assert isinstance(network.backbone, NetworkBackbone)
    (recipe,) = [parser["network_def"]["backbone"]["network"]]
    plain = ConfigParser({"imports": ["$import torch"], "net": {**recipe, "_mode_": "default"}}).get_parsed_content(
        "net"
    )
    plain.load_state_dict(torch.load(tmp_path / "plain.pt", weights_only=True))  # strictly
    for key, value in plain.state_dict().items():
        assert torch.equal(value, trained[f"backbone.network.{key}"]), key


@pytest.mark.parametrize("name", FEATURES)
def test_an_overlay_fits_the_heads(name, config_files):
    """f^g and f^l of the sizes that the heads of the configuration are made for."""
    pytest.importorskip({"resenc": "dynamic_network_architectures", "swin_unetr": "einops"}.get(name, "monai"))
    overlay = json.loads(Path(config_files(name)[1]).read_text(encoding="utf-8"))
    assert set(overlay) <= {"features", "network_def#backbone"}
    parser = ConfigParser()
    parser.read_config(config_files(name))
    features = parser.get_parsed_content("features")
    backbone = parser.get_parsed_content("network_def#backbone")
    size = (64 if name == "swin_unetr" else 32,) * 3
    with torch.no_grad():
        levels = backbone.levels(torch.rand(1, 1, *size))
    assert [level.shape[1] for level in levels[:2]] == [features[-1], features[0]]
    assert levels[1].shape[2:] == size
    assert 4 * sum(value.numel() for value in backbone.parameters()) < 25e6 or name in ("basic_unet", "swin_unetr")
