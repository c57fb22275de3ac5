# SPDX-License-Identifier: Apache-2.0

"""The benchmark on tiny networks and volumes, where numbers mean nothing: what it compares, and what it writes."""

from __future__ import annotations

import json
import math

import benchmark
import pytest
import torch
from benchmark_cases import PAPER, Training, measure, operations, peak_memory
from benchmark_restatement import dense_ncc, plain_copy, published_copy
from benchmark_runs import watch
from scripts.losses import LocalNCCLoss
from scripts.networks import SmallVolumeConv3d

TINY = {"features": [4, 8], "spatial_size": [16] * 3, "pixdim": [15.0] * 3}


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    return benchmark.phantoms(tmp_path_factory.mktemp("benchmark") / "phantoms", 3, 12.0)


@pytest.fixture
def training(phantoms, tmp_path):
    return Training(phantoms, tmp_path, epoch_length=100, **TINY, **PAPER)


class TestRestatement:
    def test_the_same_network_of_stock_layers(self, training):
        plain = plain_copy(training.network).eval()
        assert not any(isinstance(layer, SmallVolumeConv3d) for layer in plain.modules())
        image = torch.rand(1, 1, 16, 16, 16)
        for ours, theirs in zip(training.network.eval().backbone(image), plain.backbone(image), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)

    def test_the_same_matching_in_the_default_layout(self, training):
        torch.nn.init.normal_(
            training.network.matching_head.local_matching.displacement.weight
        )  # else the displacement is zero
        published = published_copy(training.network).eval()
        assert all(weight.is_contiguous() for weight in published.parameters())
        images = torch.rand(2, 1, 1, 16, 16, 16)
        ours, theirs = (network(*images)["displacement"] for network in (training.network.eval(), published))
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
        assert ours.abs().max() > 0.1

    def test_the_correlation_is_the_published_form_of_ours(self):
        torch.manual_seed(0)
        first, second = torch.rand(2, 1, 1, 14, 12, 10)
        ours = LocalNCCLoss(window=9, masked=False)(first, second)
        torch.testing.assert_close(dense_ncc(first, second), ours, rtol=1e-4, atol=1e-5)

    def test_a_step_trains_a_copy_of_its_own(self, training):
        mine = [p.clone() for p in training.network.parameters()]
        theirs = [p.clone() for p in training.published.parameters()]
        training.restatement()
        assert all(torch.equal(a, b) for a, b in zip(mine, training.network.parameters(), strict=True))
        assert not all(torch.equal(a, b) for a, b in zip(theirs, training.published.parameters(), strict=True))


def test_peak_memory_counts_what_is_there_at_once():
    def action():
        for _ in range(3):
            torch.empty(1000, 250)  # freed at once

    assert peak_memory(action, torch.nn.Identity()) == pytest.approx(1e6, rel=0.01)


def test_operations_are_counted_forwards_and_backwards():
    weight = torch.rand(4, 3, requires_grad=True)
    once = 2 * 5 * 3 * 4
    assert operations(lambda: torch.rand(5, 3) @ weight.T) == once
    assert operations(lambda: (torch.rand(5, 3) @ weight.T).sum().backward()) == 2 * once  # none for the input


def test_ratios_of_a_tiny_network(phantoms, tmp_path):
    found = measure(phantoms, tmp_path, TINY["features"], 16, PAPER, repeats=1)
    assert set(benchmark.RATIOS) <= set(found)
    assert all(math.isfinite(value) and value > 0 for value in found.values())
    assert found["memory_over_restatement"] < found["kept_memory_over_restatement"]
    assert found["step_operations"] > operations(Training(phantoms, tmp_path, **TINY, **PAPER).backbone)
    assert found["step_over_kept_step"] == found["step_seconds"] / found["kept_step_seconds"]
    assert found["step_over_backbone"] == found["step_seconds"] / found["backbone_seconds"] > 1


def test_command(phantoms, tmp_path, monkeypatch, capsys):
    case = {"features": TINY["features"], "sizes": [16], "changes": {}}
    monkeypatch.setattr(benchmark, "CASES", {"tiny": case})
    monkeypatch.setattr(benchmark, "phantoms", lambda *_, **__: phantoms)
    assert benchmark.main([str(tmp_path), "--cases", "tiny", "--repeats", "1"]) == 0
    written = json.loads((tmp_path / "benchmark.json").read_text())
    assert written["step_over_backbone"].keys() == {"tiny, 16x16x16"}
    assert written["restatement_over_step"] == {}  # of the paper's step alone
    assert written["machine"]["torch"] == torch.__version__
    table = (tmp_path / "benchmark.md").read_text()
    assert table.count("\n") == 3
    assert table.strip() in capsys.readouterr().out


def test_a_training_watched_epoch_by_epoch(phantoms, tmp_path):
    options = {**TINY, "dataset_dir": phantoms, "epochs": 3, "epoch_length": 2, "validation_pairs": 1}
    epochs = watch(1, tmp_path / "run", options)
    assert len(epochs) == 3
    assert all(epoch["seconds"] > 0 and epoch["memory"] > 1e7 for epoch in epochs)


def test_a_training_that_fails_names_its_log(phantoms, tmp_path):
    with pytest.raises(SystemExit, match=r"the training failed, see .*run\.log"):
        watch(1, tmp_path / "run", {**TINY, "dataset_dir": tmp_path / "nowhere"})
