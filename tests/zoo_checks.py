# SPDX-License-Identifier: Apache-2.0
"""
What MONAI's own tools do with an unpacked bundle. Run as a program it needs nothing but the bundle's own packages:
``python zoo_checks.py BUNDLE DATA OUT``.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser, ConfigWorkflow, ckpt_export, load, verify_net_in_out
from monai.utils import set_determinism
from warm_start import run_warm

FEW = {"epochs": 1, "epoch_length": 2, "batch_size": 1, "cache_rate": 0.0, "num_workers": 0}
PARENT = {"spatial_size": [16, 16, 16], "pixdim": [1.0, 1.0, 1.0]}
NOWHERE = [{"image": "nowhere", "label": n, "subject": str(n), "classes": [n + 1]} for n in range(2)]


@contextmanager
def standing_in(bundle: Path) -> Iterator[None]:
    """Work as in a fresh process whose folder is the bundle: ``scripts`` is the bundle's."""
    folder, path, hook = Path.cwd(), sys.path[:], sys.excepthook
    kept = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "scripts"}
    for name in kept:
        del sys.modules[name]
    os.chdir(bundle)
    sys.path.insert(0, str(bundle))
    sys.path_importer_cache.pop(".", None)  # it remembers the folder that it first was
    try:
        yield
    finally:
        os.chdir(folder)
        sys.path[:], sys.excepthook = path, hook
        for name in [name for name in sys.modules if name.partition(".")[0] == "scripts"]:
            del sys.modules[name]
        sys.modules.update(kept)
        set_determinism(None)


def config_files(name: str) -> list[str]:
    """A configuration of the bundle stood in, and the one that it lies on."""
    overlays = "network_def" not in json.loads(Path(f"configs/{name}.json").read_text())
    return [f"configs/{file}.json" for file in (["train", name] if overlays else [name])]


def config(name: str) -> ConfigParser:
    """A configuration of the bundle stood in."""
    parser = ConfigParser()
    parser.read_config(config_files(name))
    parser["bundle_root"] = "."
    return parser


def shipped_network() -> torch.nn.Module:
    """The network of inference.json, filled by models/model.pt without anything missing or left over."""
    network = config("inference").get_parsed_content("network_def")
    network.load_state_dict(torch.load("models/model.pt", weights_only=True), strict=True)
    return network.eval()


def check_network() -> None:
    """Shapes and types of the metadata, and the weights."""
    verify_net_in_out("network_def", "configs/metadata.json", "configs/inference.json")
    shipped_network()


def check_properties(out: Path, data: Path | None = None) -> None:
    """
    Every property that MONAI's tools ask a workflow for.

    Args:
        out: folder for what the workflows write.
        data: to build the workflows on; without it they get names of files that do not exist, and read none.
    """
    for name in ("train", "evaluate", "inference"):
        kind = "train" if "validate" in config(name).config else "infer"
        settings: dict[str, Any] = {"output_dir": str(out / name), "dataset_dir": str(data or out)}
        settings |= {key: value for key, value in FEW.items() if key in config(name).config}
        if data is None and name == "inference":
            settings["dataset#data"] = NOWHERE
        elif data is None:
            settings["split"] = {"train": NOWHERE, "validation": NOWHERE, "test": NOWHERE}
        workflow = ConfigWorkflow(
            workflow_type=kind,
            config_file=config_files(name),
            meta_file="configs/metadata.json",
            logging_file="configs/logging.conf",
            **settings,
        )
        workflow.initialize()
        assert workflow.check_properties() == [], name
        workflow.finalize()


def image_shape() -> list[int]:
    """A batch of one that fits the metadata; small where any size will do."""
    image = json.loads(Path("configs/metadata.json").read_text())["network_data_format"]["inputs"]["image"]
    return [1, image["num_channels"], *(16 if size == "*" else size for size in image["spatial_shape"])]


def check_torchscript(out: Path) -> None:
    """The exported network gives the same, also for another size."""
    files = {"meta_file": "configs/metadata.json", "config_file": "configs/inference.json"}
    ckpt_export("network_def", str(out / "model.ts"), ckpt_file="models/model.pt", **files)
    exported, network = torch.jit.load(out / "model.ts"), shipped_network()
    shape = image_shape()
    for size in (shape[2:], [n + 3 for n in shape[2:]]):
        image = torch.rand(*shape[:2], *size)
        with torch.no_grad():
            torch.testing.assert_close(exported(image), network(image), rtol=1e-4, atol=1e-4)


def check_load(bundle: Path) -> None:
    """``monai.bundle.load`` gives the network with its weights, by either configuration and without any data."""
    weights = torch.load("models/model.pt", weights_only=True)
    for kind in ("train", "inference"):
        network = load(bundle.name, bundle_dir=str(bundle.parent), workflow_type=kind, device="cpu")
        assert network.state_dict().keys() == weights.keys()
        for name, value in weights.items():
            assert torch.equal(network.state_dict()[name], value), name


def run(name: str, **settings: Any) -> str:
    """The command a user types, standing in the bundle; returns what it prints."""
    options = [part for key, value in settings.items() for part in (f"--{key}", str(value))]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    typed = ("-m", "monai.bundle", "run", "--config_file", str(config_files(name)), *options)
    done = run_warm(typed, environment=environment, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def check_runs(data: Path, out: Path) -> None:
    """One epoch of training, and inference with the shipped weights; they stay as they were."""
    weights = Path("models/model.pt").read_bytes()
    parent = "pair_list" in config("inference").config
    few = {key: value for key, value in {**FEW, **(PARENT if parent else {})}.items() if key in config("train").config}
    run("train", dataset_dir=data, output_dir=out / "trained", **few)
    assert torch.load(out / "trained" / "model.pt", weights_only=True).keys() == shipped_network().state_dict().keys()
    images = sorted((data / "imagesTr").glob("*.nii.gz"))
    if parent:
        run("inference", fixed=images[0], moving=images[1], output_dir=out / "used", **PARENT)
    else:
        run("inference", image=images[0], output_dir=out / "used")
    assert any(path.is_file() for path in (out / "used").rglob("*"))
    assert Path("models/model.pt").read_bytes() == weights


def main() -> None:
    """Everything that needs no further package."""
    bundle, data, out = (Path(argument).absolute() for argument in sys.argv[1:])
    with standing_in(bundle):
        check_network()
        check_properties(out, data)
        check_torchscript(out)
        check_load(bundle)
        check_runs(data, out)
    print(f"{bundle.name}: all checks passed")


if __name__ == "__main__":
    sys.path.pop(0)  # the folder of this file
    main()
