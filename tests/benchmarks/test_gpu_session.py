# SPDX-License-Identifier: Apache-2.0

"""The command for a GPU, small on the CPU; and that a device which computes something else is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import gpu_session
import pytest
import torch
from scripts.errors import InputError


def test_the_whole_session_on_the_cpu(repository, cohort, tmp_path):
    """Every step of it, with two steps of a tiny network; gloo in the place of nccl."""
    small = {"FEATURES": "[4,8]", "SIZE": "[16,16,16]", "EXTRA": "--pixdim [1.5,1.5,1.5] --num_workers 0"}
    about = {"DEVICE": "cpu", "STEPS": "2", "DATASET": str(cohort), "OUT": str(tmp_path), "PYTHON": sys.executable}
    done = subprocess.run(
        ["bash", repository / "benchmarks" / "gpu_session.sh"],
        env={**os.environ, "OMP_NUM_THREADS": "1", **small, **about},
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "session.json").read_text())
    assert (found["epochs"], found["epoch_length"], found["device"]) == (1, 2, "cpu")
    assert found["terms"]["cpu"] == pytest.approx(found["terms"]["device"])
    assert found["seconds_per_step"] > 0
    assert "aten::" in (tmp_path / "profile.txt").read_text()
    for run in ("run", "torchrun_1"):
        assert (tmp_path / run / "model.pt").is_file(), run


def test_another_loss_on_the_device_ends_the_session(monkeypatch, tmp_path):
    found = iter([{"loss": 1.0, "matching": 0.5}, {"loss": 1.0, "matching": 0.52}])
    monkeypatch.setattr(gpu_session, "make_trainer", lambda *_: type("Trainer", (), {"data_loader": [0]}))
    monkeypatch.setattr(gpu_session, "losses", lambda *_: next(found))
    with pytest.raises(InputError, match=r"matching is 0.500000 on the CPU and 0.520000 on cuda: do not train"):
        gpu_session.same_loss([], {}, "cuda", tmp_path)


def test_no_gpu_is_said_in_a_line(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="pass DEVICE=cpu"):
        gpu_session.main([str(tmp_path), "--config_file", "[]"])
