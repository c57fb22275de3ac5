# SPDX-License-Identifier: Apache-2.0

"""Pre-training by the command as it is typed, with every setting overridden."""

from __future__ import annotations

import csv
import json
from typing import Any

import numpy as np
from support import load


class TestCommand:
    def test_from_the_bundle_root(self, cohort, tmp_path, repository, run_bundle):
        """No bundle_root is needed there; nothing is written beside output_dir, nor is a useless warning shown."""
        bundle = repository / "bundle"
        before = {path for path in bundle.rglob("*") if "__pycache__" not in path.parts}
        done = run_bundle(
            cwd=bundle,
            bundle_root=None,
            config_file="configs/train.json",
            dataset_dir=cohort,
            output_dir=tmp_path / "out",
            epochs=1,
        )
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "out" / "model.pt").is_file()
        assert "nvimgcodec" not in (done.stdout + done.stderr).lower()
        assert {path for path in bundle.rglob("*") if "__pycache__" not in path.parts} == before

    def test_from_elsewhere_with_everything_overridden(self, cohort, tmp_path, run_bundle):
        """Relative paths are those of the user; what the files say proves that each setting arrived."""
        given: dict[str, Any] = {
            "features": [4, 8, 16],
            "spatial_size": [16, 20, 18],
            "pixdim": [1.25, 1.0, 1.5],
            "batch_size": 2,
            "epochs": 1,
            "epoch_length": 2,
            "learning_rate": 0.0025,
            "seed": 7,
            "symmetric": True,
            "known_share": 0.0,
            "amp": False,
            "matching_weight": 0.5,
            "smoothness_weight": 3.0,
            "restoration_weight": 2.0,
            "redundancy_weight": 0.25,
            "resume": True,
        }
        (tmp_path / "scans").symlink_to(cohort)
        done = run_bundle(cwd=tmp_path, dataset_dir="scans", output_dir="runs/one", **given)
        assert done.returncode == 0, done.stderr
        out = tmp_path / "runs" / "one"
        settings = json.loads((out / "settings.json").read_text())
        assert {name: settings[name] for name in ("features", "spatial_size", "pixdim")} == {
            name: given[name] for name in ("features", "spatial_size", "pixdim")
        }
        state = load(out / "checkpoint.pt")
        assert state["network"]["backbone.stem.conv_0.conv.weight"].shape[0] == 4
        assert state["optimizer"]["param_groups"][0]["initial_lr"] == 0.0025
        assert {entry["step"].item() for entry in state["optimizer"]["state"].values()} == {2}
        with (out / "history.csv").open() as file:
            row = {name: float(value) for name, value in next(csv.DictReader(file)).items()}
        weighted = 0.5 * row["matching"] + 3 * row["smoothness"] + 2 * row["restoration"]
        weighted += 0.25 * row["redundancy"] + row["places"] + 0.5 * row["known_map"]
        assert np.isclose(row["train_loss"], weighted, atol=1e-5)
