# SPDX-License-Identifier: Apache-2.0

"""Made-up cohorts, and ways to run the bundle on them: in this process, or as the command a user types."""

from __future__ import annotations

import csv
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np
import pytest
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.utils import set_determinism
from scipy.ndimage import gaussian_filter, shift
from warm_start import run_warm

REPOSITORY = Path(__file__).resolve().parents[1]
SIZE = 24
TINY = {
    "pixdim": [1.0, 1.0, 1.0],
    "spatial_size": [SIZE, SIZE, SIZE],
    "features": [4, 8],
    "learning_rate": 0.001,
    "epochs": 2,
    "epoch_length": 3,
    "validation_pairs": 2,
    "validation_fraction": 0.1,
    "val_interval": 1,
    "picture_interval": 100,
    "num_workers": 0,
}


def tier_of(path: Path, tiers: list[str]) -> str:
    """
    The tier of a test module.

    Args:
        path: of the module, below the repository.
        tiers: lines of ``pyproject.toml``: a tier, and folders or files that are in it.

    Raises:
        pytest.UsageError: for a module that is in none, or in several.
    """
    entries = [(tier, Path(place)) for tier, *places in map(str.split, tiers) for place in places]
    found = [tier for tier, place in entries if place == path or place in path.parents]
    if len(found) != 1:
        raise pytest.UsageError(f"{path} is in {len(found)} tiers: list it once in 'tiers' of pyproject.toml")
    return found[0]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini("tiers", "which test module is in which tier", type="linelist")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(tier_of(item.path.relative_to(config.rootpath), config.getini("tiers")))


def anatomy(subject: int, size: int = SIZE) -> np.ndarray:
    """
    A smooth random volume ``(size, size, size)``: one shape for all subjects, with a place and a noise of its own.
    """
    shape = gaussian_filter(np.random.default_rng(0).normal(size=(size, size, size)), 2.5, mode="nearest")
    rng = np.random.default_rng([1, subject])
    moved = shift(shape / shape.std(), rng.uniform(-2, 2, 3), order=1, mode="nearest")
    return (200 * moved + 10 * rng.normal(size=shape.shape)).astype(np.float32)


def make_cohort(folder: Path, subjects: int = 6, description: bool = True, first: int = 0) -> Path:
    """
    Write scans and labels in the layout of the Medical Segmentation Decathlon, or without description scans alone; the
    subjects' anatomies are those from number ``first``.
    """
    entries = []
    for subject in range(subjects):
        scan = anatomy(first + subject)
        name = f"subject_{subject}.nii.gz"
        for kind, volume in {"images": scan, "labels": (scan > 100).astype(np.uint8)}.items():
            if description or kind == "images":
                path = folder / f"{kind}Tr" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                nib.save(nib.Nifti1Image(volume, np.eye(4)), path)
        entries.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}", "site": "AB"[subject % 2]})
    if description:
        (folder / "dataset.json").write_text(json.dumps({"training": entries}), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session", name="anatomy")
def anatomy_fixture() -> Callable[..., np.ndarray]:
    """See :func:`anatomy`."""
    return anatomy


@pytest.fixture(scope="session", name="make_cohort")
def make_cohort_fixture() -> Callable[..., Path]:
    """See :func:`make_cohort`."""
    return make_cohort


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six labelled subjects, to be read only."""
    return make_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="session")
def config_files(repository: Path) -> Callable[..., list[str]]:
    """Paths of train.json and overlays by name."""
    return lambda *overlays: [str(repository / "bundle/configs" / f"{name}.json") for name in ("train", *overlays)]


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    """Undo what a bundle's ``logging.conf`` does: its handler writes to a stream that ends with the test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def restored_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what a bundle changes in its process."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr(sys, "path", sys.path[:])
    yield
    set_determinism(None)


@pytest.fixture
def workflow(repository: Path, config_files: Callable, restored_process: None) -> Callable[..., ConfigWorkflow]:
    """Make the training workflow with tiny settings; ``overlays`` names further configuration files."""

    def make(
        dataset: Path | list[str], output: Path, overlays: tuple[str, ...] = (), **overrides: Any
    ) -> ConfigWorkflow:
        return ConfigWorkflow(
            config_file=config_files(*overlays),
            meta_file=str(repository / "bundle/configs/metadata.json"),
            logging_file=False,
            workflow_type="train",
            bundle_root=str(repository / "bundle"),
            dataset_dir=dataset if isinstance(dataset, list) else str(dataset),
            output_dir=str(output),
            **{**TINY, **overrides},
        )

    return make


@pytest.fixture
def pretrain(workflow: Callable) -> Callable[..., list[dict[str, float]]]:
    """Train in this process; returns the rows of history.csv."""

    def run(dataset: Path | list[str], output: Path, **overrides: Any) -> list[dict[str, float]]:
        made = workflow(dataset, output, **overrides)
        made.initialize()
        made.run()
        made.finalize()
        with (output / "history.csv").open(newline="", encoding="utf-8") as file:
            return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]

    return run


@pytest.fixture
def refusal(workflow: Callable) -> Callable[..., str]:
    """Train in this process and expect a mistake of the user; returns the message that the user would see."""

    def run(dataset: Path, output: Path, **overrides: Any) -> str:
        from scripts.errors import user_message

        made = workflow(dataset, output, **overrides)

        def whole() -> None:
            made.initialize()
            made.run()

        with pytest.raises(Exception) as caught:  # noqa: PT011  (MONAI wraps errors in its own)
            whole()
        message = user_message(caught.value)
        if message is None:
            raise caught.value
        return message

    return run


@pytest.fixture(scope="session")
def run_bundle(repository: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """
    The command ``python -m monai.bundle run`` with tiny settings; keyword arguments are config ids, of which None is
    left out.
    """

    def run(cwd: Path = repository, **options: Any) -> subprocess.CompletedProcess[str]:
        given = {"bundle_root": repository / "bundle", "config_file": repository / "bundle/configs/train.json"}
        given |= {**TINY, **options}
        arguments = [part for name, value in given.items() if value is not None for part in (f"--{name}", str(value))]
        return run_warm(["-m", "monai.bundle", "run", *arguments], cwd)

    return run


@pytest.fixture(scope="session")
def shared_data(repository: Path) -> Path:
    """The folder of real scans; tests that need it are skipped where there is none."""
    folder = Path(os.environ.get("GVSL_DATA", repository.parent / "shared" / "data"))
    if not (folder / "hippocampus" / "dataset.json").is_file():
        pytest.skip("no real scans: set GVSL_DATA to the folder that holds hippocampus/")
    return folder


@pytest.fixture
def preprocessing(config_files):
    """The preprocessing of train.json, cropped to one size as in paper.json, with settings of one's own."""

    def make(**settings):
        parser = ConfigParser()
        parser.read_config(config_files("paper"))
        parser.update({"pixdim": [1.0, 1.0, 1.0], "spatial_size": [24, 24, 24], "intensity": "window", **settings})
        return parser.get_parsed_content("train#preprocessing")

    return make


@pytest.fixture
def no_figure_is_left_open():
    """Figures are drawn without pyplot, which would keep them."""
    plt.close("all")
    yield
    assert plt.get_fignums() == []
