# SPDX-License-Identifier: Apache-2.0

"""Two trained children of made-up data, and a real MONAI Label server that serves both."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import make_child
import numpy as np
import pytest
import requests
from label_server import CHILDREN, Server, bundle_run, scan, write


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
    """Two children, each trained on its data set until it has learned the task."""
    made = {}
    out = tmp_path_factory.mktemp("children")
    for name, numbers in CHILDREN.items():
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
        assert make_child.main(arguments) == 0
        made[name] = out / name
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
    folder = tmp_path_factory.mktemp("server")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
    if subprocess.run([label_python, "-c", "import torchvision.utils"], capture_output=True, check=False).returncode:
        stand_in = folder / "stand_in" / "torchvision"  # MONAI Label imports two functions that it does not call here
        stand_in.mkdir(parents=True)
        (stand_in / "__init__.py").touch()
        (stand_in / "utils.py").write_text("make_grid = save_image = None\n", encoding="utf-8")
        environment["PYTHONPATH"] = str(stand_in.parent)
    command = [str(label_python), "-m", "monailabel.main"]
    download = [*command, "apps", "--download", "--name", "monaibundle", "--output", str(folder)]
    subprocess.run(download, env=environment, check=True, capture_output=True, timeout=200)
    models = folder / "monaibundle" / "model"
    for name, bundle in children.items():
        shutil.copytree(bundle, models / name)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = folder / "server.log"
    settings = {"zoo_source": "local", "sam2": "false", "models": ",".join(children)}
    conf = [part for key, value in settings.items() for part in ("--conf", key, value)]
    start = ["start_server", "--app", str(models.parent), "--studies", str(studies), "--host", "127.0.0.1"]
    with log.open("w") as file:
        process = subprocess.Popen(
            [*command, *start, "--port", str(port), *conf], env=environment, stdout=file, stderr=file, cwd=folder
        )
    running = Server(f"http://127.0.0.1:{port}", models, process, log)
    try:
        for _ in range(240):
            assert process.poll() is None, log.read_text()[-5000:]
            try:
                if requests.get(running.url + "/info/", timeout=60).ok:
                    break
            except requests.ConnectionError:
                time.sleep(0.5)
        yield running
    finally:
        process.terminate()
        process.wait(60)
