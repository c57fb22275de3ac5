# SPDX-License-Identifier: Apache-2.0

"""``--tracking mlflow``: what MLflow is told of a training, where, and how often."""

from __future__ import annotations

import json

import pytest
from conftest import TINY
from ignite.engine import Events
from support import run_bundle, tracked_runs

SETTINGS = {"tracking": "mlflow", "picture_interval": 1, "validation_pairs": 1}


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """The folder where the command is given: nothing may be written there."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_losses_pictures_and_config(cohort, tmp_path, elsewhere, pretrain, workflow):
    """One run of an interrupted training, another one of the epochs that are added to a finished one."""
    output = tmp_path / "out"
    made = workflow(cohort, output, **SETTINGS)
    made.initialize()
    made.parser.get_parsed_content("train#trainer").add_event_handler(Events.EPOCH_STARTED(once=2), lambda: 1 / 0)
    with pytest.raises(RuntimeError):
        made.run()
    (run,) = tracked_runs(output)
    assert run["status"] == "RUNNING"
    assert {name.split("_2")[0] for name in run["artifacts"]} == {"config", "pictures/epoch_0001.png"}

    rows = pretrain(cohort, output, resume=True, **SETTINGS)
    (run,) = tracked_runs(output)
    assert run["status"] == "FINISHED"
    for name in ("train_loss", "matching", "smoothness", "restoration", "ncc_after", "dice_after", "folded_percentage"):
        assert run["metrics"][name] == pytest.approx({row["epoch"]: row[name] for row in rows}), name
    for name in ("loss", "matching", "smoothness", "restoration", "learning_rate"):
        assert sorted(run["metrics"][f"step/{name}"]) == [1, 2, 3, 4, 5, 6]
    steps = run["metrics"]["step/matching"]
    assert (steps[4] + steps[5] + steps[6]) / 3 == pytest.approx(rows[1]["matching"])
    names = sorted(run["artifacts"])
    assert names[-3:] == ["curves.png", "pictures/epoch_0001.png", "pictures/epoch_0002.png"]
    config = json.loads(run["artifacts"][names[-4]].read_text())
    assert (config["features"], config["resume"]) == ([4, 8], True)
    assert (output / names[-4]).is_file()

    pretrain(cohort, output, resume=True, epochs=3, **SETTINGS)
    first, second = tracked_runs(output)
    assert (first["metrics"], second["status"]) == (run["metrics"], "FINISHED")
    assert list(second["metrics"]["train_loss"]) == [3]
    assert not list(elsewhere.iterdir())


def test_two_processes_are_one_run(cohort, tmp_path, elsewhere, repository):
    options = {"bundle_root": repository / "bundle", "dataset_dir": cohort}
    options |= {**TINY, **SETTINGS, "output_dir": tmp_path / "out", "epochs": 1, "epoch_length": 2}
    done = run_bundle(repository / "bundle", "train", cwd=elsewhere, processes=2, **options)
    assert done.returncode == 0, done.stderr
    (run,) = tracked_runs(tmp_path / "out")
    assert [len(run["metrics"][name]) for name in ("step/loss", "train_loss", "ncc_after")] == [2, 1, 1]
    assert sum(name.startswith("config") for name in run["artifacts"]) == 1
    assert not list(elsewhere.iterdir())


def test_without_mlflow(cohort, tmp_path, refusal, monkeypatch):
    """The remedy is named before anything is read or written."""
    monkeypatch.setattr("scripts.training.tracking.find_spec", lambda name: None)
    assert "pip install mlflow" in refusal(tmp_path / "no scans", tmp_path / "out", tracking="mlflow")
