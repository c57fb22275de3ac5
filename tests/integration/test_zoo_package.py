# SPDX-License-Identifier: Apache-2.0
"""The packages of the model zoo, served, downloaded and used by MONAI's own clients, away from this repository."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import threading
import venv
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import packages_distributions
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import make_zoo
import monai.bundle
import numpy as np
import onnxruntime
import pytest
import torch
import zoo_checks
from make_child import committed
from monai.bundle import ConfigParser, verify_metadata
from support import write_nifti
from warm_start import run_warm
from zoo.files import REPOSITORY, SCHEMA

FOLDERS = [REPOSITORY / "bundle", *sorted((REPOSITORY / "downstream").glob("*/"))]
NAMES = [json.loads((folder / "configs" / "metadata.json").read_text())["name"] for folder in FOLDERS]
PARENT, *CHILDREN = NAMES
TRAINED = {PARENT, *(name for name, made in committed().items() if "training" in made)}
THOROUGHLY = [PARENT, "hippocampus_mr_segmentation"]
THOROUGHLY += [name for name in CHILDREN if name.endswith("_mr_classification")][:1]


class Quiet(SimpleHTTPRequestHandler):
    """Files of a folder, without a line for each request."""

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``make zoo`` writes from a fresh clone, in which weights that nobody trained are not there."""
    folders = []
    for folder, name in zip(FOLDERS, NAMES, strict=True):
        copy = tmp_path_factory.mktemp("source") / name
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("runs", "__pycache__"))
        if name not in TRAINED:
            shutil.rmtree(copy / "models", ignore_errors=True)
        folders.append(str(copy))
    out = tmp_path_factory.mktemp("dist")
    assert make_zoo.main([*folders, "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def url(dist: Path) -> Iterator[str]:
    """Where the packages are served."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(dist))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture(scope="module")
def downloaded(dist: Path, url: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The bundles as MONAI downloads and unpacks them."""
    folder = tmp_path_factory.mktemp("elsewhere")
    for package in json.loads((dist / "model_info.json").read_text()):
        name = package.rpartition("_v")[0]
        monai.bundle.download(name=name, bundle_dir=str(folder), url=f"{url}/{package}.zip", progress=False)
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == sorted(NAMES)
    return {name: folder / name for name in NAMES}


@pytest.fixture(scope="module")
def data(downloaded: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """For each bundle that is looked at thoroughly, a made-up data set that it could be trained on."""
    made = {}
    for name in THOROUGHLY:
        folder = made[name] = tmp_path_factory.mktemp("data")
        parser = ConfigParser()
        parser.read_config(str(downloaded[name] / "configs" / "train.json"))
        classes, random = parser.get("classes", []), np.random.default_rng(0)
        size = [16, 16, 16] if name == PARENT else parser.get("patch_size") or parser["spatial_size"]
        rows, entries = [], []
        for number in range(1, 13):
            subject = f"SC-{number:03}"  # the name suits every bundle's subject_key
            image = f"imagesTr/{subject}_ED_{number:03}.nii.gz"
            volume, label = random.normal(100, 10, size), np.zeros(size, np.uint8)
            for place, entry in enumerate(classes or [{}]):
                label[2 + 3 * place : 5 + 3 * place, 4:12, 4:12] = entry.get("codes", [1])[0]
            write_nifti(folder / image, (volume + 50 * (label > 0)).astype(np.float32), np.diag([*parser["pixdim"], 1]))
            write_nifti(folder / image.replace("images", "labels"), label, np.diag([*parser["pixdim"], 1]))
            entries.append({"image": image, "label": image.replace("images", "labels")})
            if "table" in parser.config:
                rows.append(f"{subject},{classes[number % len(classes)]['values'][0]}")
        labels = {"0": "background", **{str(e.get("codes", [1])[0]): e["name"] for e in classes or [{"name": "any"}]}}
        (folder / "dataset.json").write_text(json.dumps({"labels": labels, "training": entries}))
        if rows:
            table = parser["table"]
            (folder / table["file"]).write_text("\n".join([f"{table['id']},{table['target']}", *rows]))
    return made


@pytest.mark.parametrize("name", NAMES)
def test_every_bundle_is_what_the_tools_expect(name: str, downloaded: dict[str, Path], tmp_path: Path) -> None:
    bundle = downloaded[name]
    verify_metadata(str(bundle / "configs" / "metadata.json"), str(SCHEMA))
    with zoo_checks.standing_in(bundle):
        zoo_checks.check_network()
        if name != PARENT:
            zoo_checks.check_properties(tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_every_import_is_of_a_listed_package(name: str, downloaded: dict[str, Path]) -> None:
    metadata = json.loads((downloaded[name] / "configs" / "metadata.json").read_text())
    listed = {"monai", "torch", "numpy", *metadata["required_packages_version"]}
    providers = packages_distributions()
    for path in (downloaded[name] / "scripts").rglob("*.py"):
        imports = [
            node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        for node in imports:
            whole = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module]
            for module in whole if getattr(node, "level", 0) == 0 else []:
                top = module.partition(".")[0]
                assert top in sys.stdlib_module_names or listed & set(providers[top]), f"{path.name} imports {module}"


@pytest.mark.parametrize("name", THOROUGHLY)
def test_exports_loads_trains_and_infers(
    name: str, downloaded: dict[str, Path], data: dict[str, Path], tmp_path: Path
) -> None:
    with zoo_checks.standing_in(downloaded[name]):
        zoo_checks.check_properties(tmp_path, data[name])
        zoo_checks.check_torchscript(tmp_path)
        check_onnx(tmp_path)
        zoo_checks.check_load(downloaded[name])
        zoo_checks.check_runs(data[name], tmp_path)


def check_onnx(out: Path) -> None:
    """The exported network gives the same in another runtime."""
    shape = zoo_checks.image_shape()
    monai.bundle.onnx_export(
        "network_def",
        str(out / "model.onnx"),
        ckpt_file="models/model.pt",
        meta_file="configs/metadata.json",
        config_file="configs/inference.json",
        input_shape=shape,
    )
    session, image = onnxruntime.InferenceSession(out / "model.onnx"), torch.rand(shape)
    (found,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    with torch.no_grad():
        expected = zoo_checks.shipped_network()(image)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * float(np.abs(expected).max()))


def test_commands_as_typed(dist: Path, url: str, tmp_path: Path) -> None:
    """Download and check of a package by the shell, in an empty folder."""
    package = next(name for name in json.loads((dist / "model_info.json").read_text()) if name.startswith(PARENT))
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def command(cwd: Path, *words: str) -> None:
        done = run_warm(("-m", "monai.bundle", *words), cwd, environment, timeout=900)
        assert done.returncode == 0, done.stdout + done.stderr

    command(tmp_path, "download", "--name", PARENT, "--url", f"{url}/{package}.zip", "--bundle_dir", ".")
    meta = ["--meta_file", "configs/metadata.json"]
    command(tmp_path / PARENT, "verify_metadata", *meta, "--filepath", str(SCHEMA))
    network = ["--net_id", "network_def", *meta, "--config_file", "configs/inference.json"]
    command(tmp_path / PARENT, "verify_net_in_out", *network)


def test_a_bundle_for_another_torch_says_so(downloaded: dict[str, Path], tmp_path: Path) -> None:
    bundle = shutil.copytree(downloaded[PARENT], tmp_path / PARENT)
    path = bundle / "configs" / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"supported_versions": {"torch": ">=99"}}))
    done = run_warm(("-m", "monai.bundle", "run", "--config_file", "configs/train.json"), bundle)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"error: torch {torch.__version__} is in use")
    assert "pip install 'torch>=99'" in last


class Hub:
    """Stands in for Hugging Face's client: repositories are folders."""

    errors = SimpleNamespace(RevisionNotFoundError=KeyError, RepositoryNotFoundError=KeyError)

    def __init__(self, repositories: dict[str, Path]) -> None:
        self.repositories, self.calls = repositories, []

    def snapshot_download(self, repo_id: str, revision: str, local_dir: str) -> None:
        self.calls.append((repo_id, revision))
        shutil.copytree(self.repositories[repo_id], local_dir, dirs_exist_ok=True)

    def HfApi(self, token: str | None) -> Hub:
        return self

    def create_repo(self, repo_id: str, private: bool, exist_ok: bool) -> None:
        self.calls.append((repo_id, private))

    def upload_folder(self, repo_id: str, folder_path: str) -> str:
        shutil.copytree(folder_path, self.repositories[repo_id])
        return repo_id

    def create_tag(self, repo_id: str, tag: str, exist_ok: bool) -> None:
        self.calls.append((repo_id, tag))


@pytest.mark.parametrize("source", ["monaihosting", "huggingface_hub"])
def test_download_from_hugging_face(
    source: str, downloaded: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = f"MONAI/{PARENT}"
    hub = Hub({repo: downloaded[PARENT]})
    monkeypatch.setattr(monai.bundle.scripts, "huggingface_hub", hub)
    where = {"source": source, "version": "0.1.0", **({"repo": repo} if source == "huggingface_hub" else {})}
    with zoo_checks.standing_in(tmp_path):
        monai.bundle.download(PARENT, bundle_dir=str(tmp_path), progress=False, **where)
    assert hub.calls == [(repo, "0.1.0")]
    with zoo_checks.standing_in(tmp_path / PARENT):
        zoo_checks.check_load(tmp_path / PARENT)


def test_push_to_hugging_face(downloaded: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What docs/release.md tells to do: every file arrives, with the model card where the hub shows it."""
    shutil.copytree(downloaded[PARENT], tmp_path / "bundles" / PARENT)
    hub = Hub({"somebody/gvsl": tmp_path / "hub"})
    monkeypatch.setattr(monai.bundle.scripts, "huggingface_hub", hub)
    monai.bundle.push_to_hf_hub(
        "somebody/gvsl", PARENT, str(tmp_path / "bundles"), version="0.1.0", tag_as_latest_version=True
    )
    assert hub.calls == [("somebody/gvsl", True), ("somebody/gvsl", "0.1.0"), ("somebody/gvsl", "latest_version")]
    card = (tmp_path / "hub" / "README.md").read_text()
    assert card.startswith("---")
    assert card.endswith((downloaded[PARENT] / "docs" / "README.md").read_text())
    assert (tmp_path / "hub" / "models" / "model.pt").is_file()


@pytest.mark.skipif("GVSL_FRESH" not in os.environ, reason="makes virtual environments: make test-zoo")
@pytest.mark.parametrize("name", THOROUGHLY)
def test_with_the_listed_packages_alone(
    name: str, downloaded: dict[str, Path], data: dict[str, Path], tmp_path: Path
) -> None:
    """Nothing is installed but MONAI, torch, numpy and ``required_packages_version``, in these very versions."""
    metadata = json.loads((downloaded[name] / "configs" / "metadata.json").read_text())
    listed = {"monai": metadata["monai_version"], "torch": metadata["pytorch_version"]}
    listed |= {"numpy": metadata["numpy_version"], **metadata["required_packages_version"]}
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", *(f"{package}=={version}" for package, version in listed.items())],
        check=True,
    )
    subprocess.run([python, "-m", "pip", "check"], check=True)
    (tmp_path / "out").mkdir()
    arguments = [zoo_checks.__file__, downloaded[name], data[name], tmp_path / "out"]
    environment = {**{key: value for key, value in os.environ.items() if key != "PYTHONPATH"}, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [python, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{name}: all checks passed" in done.stdout
