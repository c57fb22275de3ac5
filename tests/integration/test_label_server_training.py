# SPDX-License-Identifier: Apache-2.0
"""Training as MONAI Label asks for it, without a server: all of train.json is evaluated, with lists of its own."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import make_child
import monai.bundle
import numpy as np
import pytest
import torch
import zoo_checks
from monai.bundle import ConfigParser
from scripts.files import load_file
from support import write_nifti

DOWNSTREAM = make_child.REPOSITORY / "downstream"
SEGMENTATIONS = sorted(folder.name for folder in DOWNSTREAM.glob("*_segmentation"))
ENGINES = ("initialize", "train", "validate", "run", "finalize")


def handed_over(folder: Path, count: int = 4) -> list[dict[str, str]]:
    """Scans and labels, with class numbers, as the server lists them."""
    made = []
    for number in range(count):
        volume, label = np.random.default_rng(number).normal(100, 10, (12, 14, 10)), np.zeros((12, 14, 10), np.uint8)
        label[2 + number : 8, 3:10, 3:8] = 1
        for name, values in {"image": volume + 50 * label, "label": label}.items():
            write_nifti(folder / name / f"{number}.nii.gz", values.astype(np.float32))
        made.append({name: str(folder / name / f"{number}.nii.gz") for name in ("image", "label")})
    return made


def overrides(bundle: Path, data: list[dict[str, str]]) -> dict[str, Any]:
    """What MONAI Label 0.8.5 puts into the configuration."""
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "train.json"))
    loader = {"_target_": "CheckpointLoader", "load_path": str(bundle / "models" / "model.pt"), "strict": False}
    return {
        "bundle_root": str(bundle),
        "device": "cpu",
        "train#trainer#max_epochs": 1,
        "train#dataset#data": data[1:],
        "validate#dataset#data": data[:1],
        "train#handlers": [{**loader, "load_dict": {"model": "$@network"}}, *parser["train#handlers"]],
    }


@pytest.fixture
def child(tmp_path: Path) -> Path:
    """A child that ``make child`` writes, with weights, whose own data are not there."""
    data = tmp_path / "data"
    entries = [{"image": f"image/{n}.nii.gz", "label": f"label/{n}.nii.gz"} for n in range(len(handed_over(data)))]
    description = {"modality": {"0": "MRI"}, "labels": {"0": "background", "7": "blob"}, "training": entries}
    (data / "dataset.json").write_text(json.dumps(description))
    name = "blob_mr_segmentation"
    assert make_child.main([str(data), name, "--out", str(tmp_path), "--features", "4", "8"]) == 0
    shutil.rmtree(data)
    bundle = tmp_path / name
    path = bundle / "configs" / "train.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"epoch_length": 2}))
    with zoo_checks.standing_in(bundle):
        network = zoo_checks.config("inference").get_parsed_content("network_def")
        torch.save(network.state_dict(), bundle / "models" / "model.pt")
    return bundle


def test_two_trainings_by_evaluating_everything(
    child: Path, tmp_path: Path, restored_process: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """``run_id`` is "" when 3D Slicer sends all options back; the second training goes on from the first model."""
    data = handed_over(tmp_path / "studies")
    with zoo_checks.standing_in(child):
        os.chdir(tmp_path)
        for _ in range(2):
            before = load_file(child / "models" / "model.pt")
            monai.bundle.run(
                run_id="",
                init_id=None,
                final_id=None,
                meta_file=str(child / "configs" / "metadata.json"),
                config_file=str(child / "configs" / "train.json"),
                **overrides(child, data),
            )
            after = load_file(child / "models" / "model.pt")
            assert any(not torch.equal(before[name], value) for name, value in after.items())
    assert {path.name for path in child.iterdir()} == {"LICENSE", "configs", "docs", "models", "runs", "scripts"}
    assert [path.name for path in (child / "models").iterdir()] == ["model.pt"]


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_read_or_written_beside_the_engines(child: Path, tmp_path: Path, seed: int) -> None:
    """In any order."""
    before = sorted(tmp_path.rglob("*"))
    with zoo_checks.standing_in(child):
        parser = ConfigParser()
        parser.read_config(str(child / "configs" / "train.json"))
        parser.update(overrides(child, [{"image": "nowhere", "label": "nowhere"}] * 2))
        names = [name for name in parser.config if name not in ENGINES]
        for name in random.Random(seed).sample(names, len(names)):
            parser.get_parsed_content(name)
        assert parser.get_parsed_content("label_server") is True
    assert [path for path in sorted(tmp_path.rglob("*")) if "__pycache__" not in path.parts] == before


@pytest.mark.parametrize("name", SEGMENTATIONS)
def test_nothing_is_read_by_the_committed_children(name: str) -> None:
    with zoo_checks.standing_in(DOWNSTREAM / name):
        parser = ConfigParser()
        parser.read_config("configs/train.json")
        parser.update(overrides(Path("."), [{"image": "nowhere", "label": "nowhere"}] * 2))
        for key in parser.config:
            if key not in ENGINES:
                parser.get_parsed_content(key)
