# SPDX-License-Identifier: Apache-2.0
"""Children that begin with the weights of one of MONAI's networks: its backbone takes the place of the template's."""

from __future__ import annotations

import json
import pydoc
import shutil
from functools import partial
from pathlib import Path

import make_child
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.networks.nets import SegResNet
from scripts.networks import NetworkBackbone, describe
from support import run_bundle

FEATURES = [8, 16, 32]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights and settings of a pre-training of a small SegResNet."""
    torch.manual_seed(0)
    backbone = NetworkBackbone(
        partial(SegResNet, spatial_dims=3, in_channels=1, init_filters=8, blocks_down=[1, 1, 1], blocks_up=[1, 1]),
        **{"global_features": "down_layers.2", "local_features": "conv_final.2", "multiple": 4},
        levels=["down_layers.0", "down_layers.1", "up_layers.0"],
    )
    folder = tmp_path_factory.mktemp("run")
    network = {"_target_": "scripts.networks.GVSL", "backbone": describe(backbone)}
    (folder / "settings.json").write_text(json.dumps({"features": FEATURES, "network_def": network}))
    torch.save({f"backbone.{name}": value for name, value in backbone.state_dict().items()}, folder / "model.pt")
    return folder / "model.pt"


@pytest.mark.parametrize("mode", ["fitted", "finetune"])
def test_a_segmentation_is_trained_and_used(mode: str, start: Path, dataset: Path, tmp_path: Path) -> None:
    name = "blob_mr_segmentation"
    assert make_child.main([str(dataset), name, "--out", str(tmp_path), "--start", str(start)]) == 0
    child = tmp_path / name
    for config in ("train", "inference"):
        made = json.loads((child / "configs" / f"{config}.json").read_text())
        assert made["features"] == FEATURES
        assert made["network_def"]["backbone"]["network"]["_target_"].endswith("SegResNet")
    assert "features" not in json.loads((child / "configs" / "paper.json").read_text())
    run = {"mode": mode, "epochs": 1, "epoch_length": 2, "pretrained": start, "num_workers": 1}
    done = run_bundle(child, "train", dataset_dir=dataset, output_dir=tmp_path / "run", **run)
    assert done.returncode == 0, done.stdout + done.stderr
    count = len(torch.load(start, weights_only=True))
    taken = count if mode == "fitted" else count - 9  # of the last level of the decoder, and what is between it and f^l
    assert f"backbone: {taken} of {count} tensors" in done.stdout
    trained = {"model": tmp_path / "run" / "model.pt", "image": dataset / "imagesTr" / "subject_0.nii.gz"}
    done = run_bundle(child, "inference", output_dir=tmp_path / "found", **trained)
    assert done.returncode == 0, done.stdout + done.stderr
    (written,) = (tmp_path / "found").glob("*.nii.gz")
    assert set(np.unique(nib.load(written).dataobj)) <= {0, 7}


def test_a_classification_begins_with_the_encoder(start: Path, dataset: Path, tmp_path: Path) -> None:
    data = shutil.copytree(dataset, tmp_path / "data")
    rows = [f"subject_{number},{number % 2}" for number in range(8)]
    (data / "patients.csv").write_text("\n".join(["id,ill", *rows]) + "\n")
    name = "ill_mr_classification"
    given = [str(data), name, "--out", str(tmp_path), "--start", str(start), "--table", "patients.csv"]
    assert make_child.main([*given, "--id", "id", "--target", "ill", "--subject_key", r"(subject_\d)"]) == 0
    run = {"epochs": 1, "epoch_length": 2, "pretrained": start, "num_workers": 1}
    done = run_bundle(tmp_path / name, "train", dataset_dir=data, output_dir=tmp_path / "run", **run)
    assert done.returncode == 0, done.stdout + done.stderr
    before, after = torch.load(start, weights_only=True), torch.load(tmp_path / "run" / "model.pt", weights_only=True)
    moved = [key for key, value in before.items() if not torch.equal(after[key], value)]
    assert any("down_layers" in key for key in moved)
    assert not any("up_" in key for key in moved)


def test_features_come_from_the_settings(
    dataset: Path, start: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Of the bundle's own backbone too; other ones that are asked for are refused."""
    network = {"_target_": "scripts.networks.UNetBackbone", "spatial_dims": 3, "in_channels": 1, "features": [4, 12]}
    settings = {"features": [4, 12], "network_def": {"backbone": network}}
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    chosen = make_child.choose(dataset, "blob_mr_segmentation", {}, start=make_child.backbone_of(tmp_path / "model.pt"))
    assert (chosen.settings["features"], chosen.backbone) == ([4, 12], None)
    given = [str(dataset), "blob_mr_segmentation", "--out", str(tmp_path), "--start", str(start)]
    assert make_child.main([*given, "--features", "4", "8"]) == 1
    assert "have the features [8, 16, 32]: leave --features out" in capsys.readouterr().err
    assert make_child.main(given) == 0


def test_several_channels_are_refused(
    dataset: Path, start: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    described = json.loads((dataset / "dataset.json").read_text())
    (shutil.copytree(dataset, tmp_path / "data") / "dataset.json").write_text(
        json.dumps({**described, "modality": {"0": "T1", "1": "T2"}})
    )
    given = [str(tmp_path / "data"), "blob_mr_segmentation", "--out", str(tmp_path), "--start", str(start)]
    assert make_child.main(given) == 1
    assert "for images of one channel, and dataset.json names 2 (T1, T2)" in capsys.readouterr().err


def test_settings_that_cannot_be_read(
    dataset: Path, start: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    shutil.copy(start, tmp_path / "model.pt")
    (tmp_path / "settings.json").write_text("{")
    given = [str(dataset), "blob_mr_segmentation", "--out", str(tmp_path / "out")]
    assert make_child.main([*given, "--start", str(tmp_path / "model.pt")]) == 1
    assert "settings.json cannot be read" in capsys.readouterr().err


def test_a_package_that_is_missing_is_named(
    dataset: Path, start: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of nnU-Net's network: one line, before anything is written."""
    shutil.copy(start, tmp_path / "model.pt")
    settings = json.loads((start.parent / "settings.json").read_text())
    network = settings["network_def"]["backbone"]["network"]
    network["_target_"] = "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    found = pydoc.locate  # as it answers where the package is not installed
    absent = "dynamic_network_architectures"
    monkeypatch.setattr("monai.utils.module.locate", lambda path: None if path.startswith(absent) else found(path))
    given = [str(dataset), "blob_mr_segmentation", "--out", str(tmp_path / "out")]
    assert make_child.main([*given, "--start", str(tmp_path / "model.pt")]) == 1
    assert "needs the package dynamic_network_architectures: python -m pip install" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
