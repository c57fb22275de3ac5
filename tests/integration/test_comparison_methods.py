# SPDX-License-Identifier: Apache-2.0

"""The other registrations, in the environment of `make compare`: fields that lead the right way, on turned grids."""

from __future__ import annotations

import json
import os
import subprocess

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates
from support import write_nifti

PYTHON = os.environ.get("GVSL_COMPARE")
"""Of that environment; make test-compare sets it."""
SIZE = (40, 36, 32)
TURNED = np.array([[0.0, -2.0, 0.0, 90.0], [2.0, 0.0, 0.0, -5.0], [0.0, 0.0, 2.0, 4.0], [0.0, 0.0, 0.0, 1.0]])


def volume(affine, size, shift):
    """A texture and a box in it, defined in millimetres, moved."""
    texture = gaussian_filter(np.random.default_rng(0).normal(size=(64, 64, 64)), 2)
    points = affine[:3, :3] @ np.indices(size).reshape(3, -1) + affine[:3, 3:] - np.array(shift)[:, None]
    image = map_coordinates(texture / texture.std(), points / 2 + 8, order=1, mode="nearest").reshape(size)
    inside = np.all(np.abs(points - np.array([[38.0], [34.0], [32.0]])) < [[16.0], [14.0], [12.0]], axis=0)
    return (400 + 100 * image + 80 * inside.reshape(size)).astype(np.float32), inside.reshape(size).astype(np.uint8)


@pytest.mark.skipif(PYTHON is None, reason="make test-compare runs it, in its own environment")
@pytest.mark.parametrize("grid", ["own", "model"])
def test_every_method_finds_a_shift_between_turned_grids(tmp_path, repository, grid):
    data = tmp_path / "data"
    straight = np.diag([2.0, 2.0, 2.0, 1.0])
    for name, affine, shift in (("a", straight, (0, 0, 0)), ("b", TURNED, (6.0, -4.0, 4.0))):
        size = SIZE if name == "a" else (SIZE[1], SIZE[0], SIZE[2])
        image, label = volume(affine, size, shift)
        write_nifti(data / "imagesTr" / f"{name}.nii.gz", image, affine)
        write_nifti(data / "labelsTr" / f"{name}.nii.gz", label, affine)
    training = [{"image": f"imagesTr/{name}.nii.gz", "label": f"labelsTr/{name}.nii.gz"} for name in "ab"]
    (data / "dataset.json").write_text(json.dumps({"labels": {"0": "background", "1": "box"}, "training": training}))
    command = [
        *(PYTHON, repository / "benchmarks" / "compare.py", "--data", data, "--out", tmp_path / "out", "--pairs", "1"),
        *("--grid", grid, "--pixdim", "[2,2,2]", "--spatial_size", "[48,48,32]"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    assert "left out" not in done.stdout
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())["methods"]
    assert list(found)[:4] == ["before", "ours_affine", "ours", "ours_refined"]
    for name in ("greedy_affine", "greedy", "greedy_weighted", "ants"):
        assert found[name]["dice"] > max(0.9, found["before"]["dice"] + 0.1), found
    for name in ("convexadam_mind", "convexadam_ours"):  # from the affine map of a network that knows no boxes
        assert found[name]["failed"] == 0
        assert found[name]["dice"] > found["before"]["dice"], found
