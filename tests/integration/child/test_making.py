# SPDX-License-Identifier: Apache-2.0
"""A child bundle made from a data set: its files, the weights it starts with, and what is refused."""

from __future__ import annotations

import json

import make_child
import pytest
import torch
from jsonschema import validate
from scripts.networks import UNetBackbone
from zoo.files import SCHEMA

NAME = "blob_mr_segmentation"


def test_made_again_it_has_the_same_bytes(bundle, dataset, tmp_path):
    assert make_child.main([str(dataset), NAME, "--out", str(tmp_path), "--features", "4", "8"]) == 0
    first = {
        p.relative_to(bundle): p.read_bytes() for p in bundle.rglob("*") if p.is_file() and "models" not in p.parts
    }
    again = {p.relative_to(tmp_path / NAME): p.read_bytes() for p in (tmp_path / NAME).rglob("*") if p.is_file()}
    assert {name for name in first if "__pycache__" not in name.parts and "runs" not in name.parts} == set(again)
    assert all(first[name] == content for name, content in again.items())


def test_metadata_fits_the_schema(bundle):
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    validate(metadata, json.loads(SCHEMA.read_text()))
    assert metadata["version"] in metadata["changelog"]
    assert metadata["network_data_format"]["outputs"]["pred"]["channel_def"] == {"0": "background", "1": "blob"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modality": {"0": "US"}}, "names the modality 'US'"),
        ({"labels": {"0": "background"}}, "no structure"),
        ({"labels": ["background"]}, "no structure"),
        ({"labels": "background"}, 'needs "labels"'),
    ],
)
def test_a_description_that_will_not_do(dataset, tmp_path, capsys, change, message):
    described = json.loads((dataset / "dataset.json").read_text()) | change
    for name in ("imagesTr", "labelsTr"):
        (tmp_path / name).symlink_to(dataset / name)
    (tmp_path / "dataset.json").write_text(json.dumps(described))
    assert make_child.main([str(tmp_path), NAME, "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("make_child: error:")
    assert message in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["Blob_mr_segmentation", "blob_segmentation", "blob_mr_v1_segmentation", "../x"])
def test_a_name_the_zoo_would_refuse(dataset, tmp_path, name):
    with pytest.raises(SystemExit):
        make_child.main([str(dataset), name, "--out", str(tmp_path)])


def test_a_bundle_is_not_overwritten_unasked(bundle, dataset):
    with pytest.raises(SystemExit):
        make_child.main([str(dataset), NAME, "--out", str(bundle.parent)])


def test_the_start_is_the_pretrained_backbone_under_a_new_layer(dataset, tmp_path):
    backbone = UNetBackbone(features=(4, 8))
    torch.save({f"backbone.{k}": v for k, v in backbone.state_dict().items()}, tmp_path / "model.pt")
    start = [str(dataset), NAME, "--out", str(tmp_path / "out"), "--start", str(tmp_path / "model.pt")]
    assert make_child.main([*start, "--features", "4", "8"]) == 0
    path = tmp_path / "out" / NAME / "models" / "model.pt"
    weights = torch.load(path, weights_only=True)
    assert all(torch.equal(weights[f"backbone.{k}"], v) for k, v in backbone.state_dict().items())
    assert set(weights) - {f"backbone.{k}" for k in backbone.state_dict()} == {"head.weight", "head.bias"}
    assert not any(weights[f"head.{name}"].any() for name in ("weight", "bias"))
    before = path.read_bytes()
    assert make_child.main([*start, "--features", "4", "8", "--force"]) == 0
    assert path.read_bytes() == before


def test_a_start_of_other_channels_is_refused(dataset, tmp_path, capsys):
    torch.save(UNetBackbone(features=(4, 8)).state_dict(), tmp_path / "model.pt")
    start = [str(dataset), NAME, "--out", str(tmp_path / "out"), "--start", str(tmp_path / "model.pt")]
    assert make_child.main([*start, "--features", "8", "16"]) == 1
    assert "--features must be those of" in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "out" / NAME).exists()  # so that the same command can be mended
