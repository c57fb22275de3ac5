# SPDX-License-Identifier: Apache-2.0

"""Two trained children of made-up data, and a real MONAI Label server that serves both."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import make_child
import numpy as np
import pytest
import torch
from label_server import CHILDREN, NEW, Server, bundle_run, scan, started, write
from scripts.networks import UNetBackbone


@pytest.fixture(scope="package")
def label_python() -> Path:
    """Python of the environment that MONAI Label is installed in."""
    python = os.environ.get("GVSL_MONAILABEL")
    if not python:
        pytest.skip("MONAI Label has an environment of its own: make test-monailabel")
    return Path(python).absolute()


@pytest.fixture(scope="package")
def studies(label_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scans of different sizes, all smaller somewhere than the children's patch; without labels."""
    folder = tmp_path_factory.mktemp("studies")
    for number, size in enumerate([(30, 26, 22), (24, 34, 20), (18, 22, 40), (33, 21, 27), (28, 28, 28), (36, 30, 18)]):
        write(folder / f"patient_{number}.nii.gz", scan(100 + number, size)[0])
    return folder


@pytest.fixture(scope="package")
def children(label_python: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two children, each trained on its data set until it has learned the task, and one on a backbone alone."""
    made = {}
    out = tmp_path_factory.mktemp("children")
    torch.save(UNetBackbone(features=(8, 16)).state_dict(), out / "backbone.pt")
    for name, numbers in {**CHILDREN, NEW: CHILDREN["plain_mr_segmentation"]}.items():
        data = tmp_path_factory.mktemp("data")
        codes = np.zeros(3, np.uint8)
        for code, number in numbers.items():
            codes[number] = code
        entries = []
        for subject in range(8):
            image, label = scan(subject, (28, 26, 24))
            write(data / "imagesTr" / f"s{subject}.nii.gz", image)
            write(data / "labelsTr" / f"s{subject}.nii.gz", codes[label])
            entries.append({"image": f"./imagesTr/s{subject}.nii.gz", "label": f"./labelsTr/s{subject}.nii.gz"})
        structures = {str(code): ("", "core", "shell")[number] for code, number in numbers.items()}
        description = {"modality": {"0": "MRI"}, "labels": {"0": "background", **structures}, "training": entries}
        (data / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
        arguments = [str(data), name, "--out", str(out), "--features", "8", "16", "--patch_size", "32", "32", "32"]
        arguments += ["--start", str(out / "backbone.pt")] if name == NEW else []
        assert make_child.main(arguments) == 0
        made[name] = out / name
        if name == NEW:
            continue
        few = {"epochs": 8, "epoch_length": 20, "warmup_steps": 0, "mode": "scratch"}
        few |= {"learning_rate": 0.01, "head_learning_rate": 0.01}
        runs = tmp_path_factory.mktemp("run")
        bundle_run(made[name], "train", dataset_dir=data, output_dir=runs, **few)
        shutil.copyfile(runs / "model.pt", made[name] / "models" / "model.pt")
    return made


@pytest.fixture(scope="package")
def server(
    label_python: Path, studies: Path, children: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    with started(label_python, studies, children, tmp_path_factory.mktemp("server")) as running:
        yield running
