# SPDX-License-Identifier: Apache-2.0

"""Made-up scans for MONAI Label, and a running server."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import requests
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation
from warm_start import run_warm

CHILDREN = {"plain_mr_segmentation": {1: 1, 2: 2}, "coded_mr_segmentation": {2: 1, 5: 2}}
"""Class numbers by the codes of the label files; in the second one class's code is the other's number."""
NEW = "new_mr_segmentation"
"""A child that nobody has trained."""
PATIENT = np.eye(4)
PATIENT[:3, :3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]] @ Rotation.from_euler("xyz", [7, -4, 3], True).as_matrix()
PATIENT[:3] *= [1.1, 1.4, 1.6, 1]
PATIENT[:3, 3] = [12, -30, 7]
"""Voxels to millimetres: axes exchanged, one of them reversed, oblique, anisotropic."""


def scan(seed: int, size: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """An image of a bright core in a grey shell, and its class numbers."""
    random = np.random.default_rng(seed)
    centre = np.array(size) * random.uniform(0.42, 0.58, 3)
    distance = np.sqrt((((np.indices(size).T - centre) / np.array(size)) ** 2).sum(-1)).T
    label = np.where(distance < 0.16, 1, np.where(distance < 0.3, 2, 0)).astype(np.uint8)
    image = np.array([0.0, 100.0, 50.0])[label] + 3 * random.normal(size=size)
    return gaussian_filter(image, 0.4).astype(np.float32), label


def dices(found: np.ndarray, truth: np.ndarray) -> list[float]:
    """Of core and shell."""
    return [2 * ((found == k) & (truth == k)).sum() / ((found == k).sum() + (truth == k).sum()) for k in (1, 2)]


def write(path: Path, volume: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(volume, PATIENT), path)


def bundle_run(bundle: Path, config: str, **settings: Any) -> None:
    """The command a user types."""
    options = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    typed = ("-m", "monai.bundle", "run", "--config_file", f"configs/{config}.json", *options)
    done = run_warm(typed, bundle, timeout=1500)
    assert done.returncode == 0, done.stdout + done.stderr


@dataclass
class Server:
    """A running server: its address, its folder of bundles, its process and what it printed."""

    url: str
    models: Path
    process: subprocess.Popen
    log: Path

    def call(self, method: str, path: str, **options: Any) -> requests.Response:
        """Ask, and expect an answer."""
        answer = requests.request(method, self.url + path, timeout=300, **options)
        assert answer.ok, f"{answer.status_code} {answer.text}\n{self.log.read_text()[-3000:]}"
        return answer

    def infer(self, name: str, image: str) -> nib.Nifti1Image:
        """The label map that 3D Slicer gets."""
        answer = self.call("POST", f"/infer/{name}", params={"image": image, "output": "image"})
        compressed = answer.content[:2] == b"\x1f\x8b"  # as the scan is
        return nib.Nifti1Image.from_bytes(gzip.decompress(answer.content) if compressed else answer.content)

    def refuses(self, name: str, image: str, message: str) -> bool:
        """Whether a task's error is in the log: MONAI Label answers any of them by "Internal Server Error" alone."""
        before = len(self.log.read_text())
        answer = requests.post(f"{self.url}/infer/{name}", params={"image": image, "output": "image"}, timeout=300)
        assert answer.status_code == 500
        for _ in range(60):
            if re.search(message, self.log.read_text()[before:]):
                return True
            time.sleep(0.5)
        return False

    def train(self, name: str) -> None:
        """Train one epoch and wait for the end: 3D Slicer sends every option that it was told of, most as they were."""
        options = self.call("GET", "/info/").json()["trainers"][name]["config"]
        request = {key: value[0] if isinstance(value, list) else value for key, value in options.items()}
        request |= {"max_epochs": 1, "val_split": 0.34, "model": name}
        self.call("POST", f"/train/{name}", json=request)
        for _ in range(600):
            time.sleep(0.5)
            state = self.call("GET", "/train/").json()
            if state["status"] in ("DONE", "ERROR", "FAILED"):
                break
        assert state["status"] == "DONE", self.log.read_text()[-5000:]


@contextmanager
def started(python: Path, studies: Path, bundles: dict[str, Path], folder: Path) -> Iterator[Server]:
    """A server on a folder of scans, with bundles by the names it is to list, in a folder of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
    if subprocess.run([python, "-c", "import torchvision.utils"], capture_output=True, check=False).returncode:
        stand_in = folder / "stand_in" / "torchvision"  # MONAI Label imports two functions that it does not call here
        stand_in.mkdir(parents=True)
        (stand_in / "__init__.py").touch()
        (stand_in / "utils.py").write_text("make_grid = save_image = None\n", encoding="utf-8")
        environment["PYTHONPATH"] = str(stand_in.parent)
    command = [str(python), "-m", "monailabel.main"]
    download = [*command, "apps", "--download", "--name", "monaibundle", "--output", str(folder)]
    subprocess.run(download, env=environment, check=True, capture_output=True, timeout=200)
    models = folder / "monaibundle" / "model"
    for name, bundle in bundles.items():
        shutil.copytree(bundle, models / name)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = folder / "server.log"
    settings = {"zoo_source": "local", "sam2": "false", "models": ",".join(bundles)}
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
