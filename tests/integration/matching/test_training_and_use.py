# SPDX-License-Identifier: Apache-2.0

"""What training and the use of a model share: weights and settings."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from matching_runs import BUNDLE, SETTINGS
from monai.bundle import ConfigWorkflow
from scripts.errors import InputError, user_message

ZOOM = "scripts.transforms.Zoomd"


def test_training_starts_from_weights(phantoms, model, tmp_path, monkeypatch):
    """``pretrained`` fills the network before training, exactly or not at all."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)

    def start(output, **overrides):
        workflow = ConfigWorkflow(
            config_file=str(BUNDLE / "configs" / "train.json"),
            workflow_type="train",
            logging_file=False,
            bundle_root=str(BUNDLE),
            dataset_dir=str(phantoms),
            output_dir=str(output),
            pretrained=str(model),
            **{**SETTINGS, **overrides},
        )
        workflow.initialize()
        return workflow.network_def

    weights = torch.load(model, weights_only=True)
    network = start(tmp_path / "a", **{"network_def#matching_head#global_matching#hidden_channels": 8})
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())
    with pytest.raises((InputError, RuntimeError)) as caught:
        start(tmp_path / "b", features=[4, 8])
    assert "of another architecture" in (user_message(caught.value) or "")


def test_configurations_agree():
    """What inference shares with training is the same; evaluation is laid over training and names none of it again."""
    train, inference, evaluate = (
        json.loads((BUNDLE / "configs" / f"{name}.json").read_text()) for name in ("train", "inference", "evaluate")
    )
    for name in (*sorted({*train["settings"]} - {"network_def", "spatial_size"}), "memory_format", "device"):
        assert train[name] == inference[name], name
        assert name not in evaluate
    assert evaluate["spatial_size"] == inference["spatial_size"]  # whole scans; training sees parts of them
    network = {key: value for key, value in train["network_def"].items() if key not in ("symmetric", "corrupted")}
    assert network == inference["network_def"]
    same = {name for name, value in evaluate.items() if train.get(name, ...) == value}
    assert same <= {"finalize"}
    prepared = [step for step in train["train"]["preprocessing_transforms"] if step["_target_"] != ZOOM]
    crop = evaluate["validate#preprocessing"]["transforms"][1]
    apart = ("CopyItemsd", crop["_target_"])
    kept = [step["_target_"] for step in inference["preprocessing"]["transforms"] if step["_target_"] not in apart]
    assert kept == [step["_target_"] for step in prepared]
    (inferred,) = (step for step in inference["preprocessing"]["transforms"] if step["_target_"] == crop["_target_"])
    assert inferred["mode"] == crop["mode"]
