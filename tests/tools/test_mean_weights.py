# SPDX-License-Identifier: Apache-2.0
"""Means of weights, and weights with the norms of new ones: what they compute, and what is refused."""

from __future__ import annotations

import json

import pytest
import torch
from mean_weights import BUNDLE, main, mean_of
from monai.bundle import ConfigParser


@pytest.fixture
def network(tmp_path):
    """A small network of a configuration, and that configuration."""
    config = tmp_path / "small.json"
    settings = ConfigParser.load_config_file(BUNDLE / "configs" / "train.json")
    config.write_text(json.dumps({**settings, "features": [4, 8], "bundle_root": str(BUNDLE)}))
    parser = ConfigParser()
    parser.read_config(str(config))
    torch.manual_seed(3)
    return parser.get_parsed_content("network_def").eval(), config


def kept(network, path, factor=1.0):
    torch.save({name: value * factor for name, value in network.state_dict().items()}, path)
    return str(path)


def test_the_mean_is_of_each_weight(network, tmp_path, capsys):
    network, config = network
    models = [kept(network, tmp_path / f"{factor}.pt", factor) for factor in (1.0, 2.0, 6.0)]
    assert main([*models, "--config_file", str(config), "--out", str(tmp_path / "mean.pt")]) == 0
    assert "mean of 3" in capsys.readouterr().out
    found = torch.load(tmp_path / "mean.pt")
    for name, value in network.state_dict().items():
        torch.testing.assert_close(found[name], value * 3)


def test_names_that_share_a_tensor_share_its_mean(tmp_path):
    """nnU-Net's decoder holds its encoder: as many tensors as names would be a file of four times the size."""
    shared, other = torch.ones(1000), torch.full((1000,), 3.0)
    found = [
        {"encoder": one, "decoder.encoder": one, "own": one + 1, "count": torch.tensor(2)} for one in (shared, other)
    ]
    torch.save(mean := mean_of(found), tmp_path / "mean.pt")
    assert mean["encoder"] is mean["decoder.encoder"]
    assert (tmp_path / "mean.pt").stat().st_size < 12000
    assert mean["encoder"].unique().tolist() == [2.0]
    assert mean["own"].unique().tolist() == [3.0]
    assert mean["count"].item() == 2


def test_new_norms_change_the_weights_and_no_output(network, tmp_path, capsys):
    network, config = network
    image = torch.rand(1, 1, 16, 16, 16)
    with torch.no_grad():
        for name, value in network.named_parameters():
            if ".conv.weight" in name and name.startswith("backbone"):
                value.mul_(3)
        expected = network.backbone(image)
    model = kept(network, tmp_path / "model.pt")
    assert main([model, "--new_norms", "--config_file", str(config), "--out", str(tmp_path / "new.pt")]) == 0
    assert "convolutions, those before a GroupNorm, have the norms of a new network" in capsys.readouterr().out
    before, found = network.state_dict(), torch.load(tmp_path / "new.pt")
    name = "backbone.stem.conv_0.conv.weight"
    assert found[name].norm() < before[name].norm() / 2
    network.load_state_dict(found)
    with torch.no_grad():
        for one, other in zip(network.backbone(image), expected, strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)


def test_trainings_that_did_not_go_on_from_each_other_are_refused(network, tmp_path, capsys):
    network, config = network
    one = kept(network, tmp_path / "one.pt")
    for value in network.parameters():
        torch.nn.init.normal_(value)
    other = kept(network, tmp_path / "other.pt")
    assert main([one, other, "--config_file", str(config), "--out", str(tmp_path / "mean.pt")]) == 1
    assert "other.pt and " in (said := capsys.readouterr().err)
    assert "did not go on from each other" in said
    assert not (tmp_path / "mean.pt").exists()


def test_what_cannot_be_used_is_refused_in_one_line(network, tmp_path, capsys):
    network, config = network
    model = kept(network, tmp_path / "model.pt")
    assert main([model, "--out", str(tmp_path / "out.pt")]) == 1  # of train.json's width it is not
    assert "another architecture" in capsys.readouterr().err
    assert main([str(tmp_path / "none.pt"), "--config_file", str(config), "--out", str(tmp_path / "out.pt")]) == 1
    assert "none.pt does not exist" in capsys.readouterr().err
    for arguments, message in (
        (["--config_file", "none.json", "--out", str(tmp_path / "out.pt")], "none.json does not exist"),
        (["--config_file", str(config), "--out", str(tmp_path / "none" / "out.pt")], "none does not exist"),
        (["--config_file", str(config), "--out", model], "would be lost"),
    ):
        with pytest.raises(SystemExit):
            main([model, *arguments])
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out.pt").exists()
