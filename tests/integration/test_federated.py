# SPDX-License-Identifier: Apache-2.0

"""Federated training: two clients of each kind of bundle, with MONAI's own client."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import make_child
import numpy as np
import pytest
import torch
import zoo_checks
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems
from monai.fl.utils.exchange_object import ExchangeObject
from support import write_nifti

Weights = dict[str, torch.Tensor]
ROUNDS = 2
TINY = {
    "epochs": ROUNDS,
    "epoch_length": 2,
    "batch_size": 1,
    "cache_rate": 0.0,
    "num_workers": 0,
    "learning_rate": 0.01,
}


def write_site(folder: Path, site: int) -> Path:
    """Eight subjects of one hospital, half of them ill, with a bright block that is labelled."""
    random = np.random.default_rng(site)
    rows, entries = ["id,ill"], []
    for subject in range(8):
        volume, label = random.normal(100, 10, (16, 16, 16)), np.zeros((16, 16, 16), np.uint8)
        label[4 + site : 10, 3 + subject % 3 : 12, 4:12] = 1
        image = f"imagesTr/s{subject}.nii.gz"
        write_nifti(folder / image, (volume + 50 * label).astype(np.float32))
        write_nifti(folder / image.replace("images", "labels"), label)
        entries.append({"image": image, "label": image.replace("images", "labels")})
        rows.append(f"s{subject},{'yes' if subject % 2 else 'no'}")
    described = {"modality": {"0": "MRI"}, "labels": {"0": "background", "1": "block"}, "training": entries}
    (folder / "dataset.json").write_text(json.dumps(described))
    (folder / "patients.csv").write_text("\n".join(rows))
    return folder


class Kind:
    """A kind of bundle, and what two hospitals train it with."""

    def __init__(self, bundle: Path, sites: list[Path], metric: str, **settings: Any) -> None:
        self.bundle, self.sites, self.metric, self.settings = bundle, sites, metric, settings


@pytest.fixture(params=["pretraining", "segmentation", "classification"])
def kind(
    request: pytest.FixtureRequest, tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Kind]:
    """The parent, and a child of each task; none of their code is on the path yet."""
    task = request.param
    sites = [write_site(tmp_path / f"site_{site}", site) for site in range(2)]
    if task == "pretraining":
        bundle = shutil.copytree(repository / "bundle", tmp_path / "bundle")
        small = {"spatial_size": [16] * 3, "pixdim": [1.0] * 3, "features": [4, 8]}
        small |= {"validation_pairs": 2, "val_interval": 1}
        made = Kind(bundle, sites, "ncc_after", **small)
    else:
        name = f"block_mr_{task}"
        table = ["--table", "patients.csv", "--id", "id", "--target", "ill", "--subject_key", r"(s\d)\.nii"]
        options = table if task == "classification" else []
        arguments = [str(sites[0]), name, "--out", str(tmp_path), "--features", "4", "8", *options]
        assert make_child.main(arguments) == 0
        made = Kind(tmp_path / name, sites, {"segmentation": "val_dice", "classification": "val_auc"}[task])
    with zoo_checks.standing_in(tmp_path):
        monkeypatch.setattr(sys, "path", [folder for folder in sys.path if not (Path(folder) / "scripts").is_dir()])
        yield made


def mean(parts: list[Weights]) -> Weights:
    """What the server makes of the clients' weights."""
    return {name: torch.stack([part[name] for part in parts]).mean(0) for name in parts[0]}


def same(first: Weights, second: Weights) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def test_two_clients_train_exchange_and_evaluate(kind: Kind, tmp_path: Path) -> None:
    clients = []
    known = json.loads((kind.bundle / "configs" / "train.json").read_text())
    for number, site in enumerate(kind.sites):
        common = {
            "bundle_root": str(kind.bundle),
            "dataset_dir": str(site),
            "output_dir": str(tmp_path / f"out_{number}"),
            **kind.settings,
        }
        train = {**common, **{key: value for key, value in TINY.items() if key in known}}
        evaluate = {**common, "load_pretrain": False}
        client = MonaiAlgo(str(kind.bundle), send_weight_diff=number == 1, train_kwargs=train, eval_kwargs=evaluate)
        client.initialize({ExtraItems.CLIENT_NAME: f"hospital {number}"})
        clients.append(client)
    shared = {name: value.clone() for name, value in clients[0].trainer.network.state_dict().items()}
    for _ in range(ROUNDS):  # each an epoch of the schedule
        local = []
        for client in clients:
            client.train(ExchangeObject(weights=shared))
            answer = client.get_weights()
            assert answer.statistics["num_executed_iterations"] == TINY["epoch_length"]
            whole = {name: torch.as_tensor(value).clone() for name, value in answer.weights.items()}
            if client.send_weight_diff:
                whole = {name: shared[name] + value for name, value in whole.items()}
            local.append(whole)
        assert not same(local[0], shared)
        assert not same(local[0], local[1])  # each learned from its own data
        shared = mean(local)
    for number, client in enumerate(clients):
        metrics = client.evaluate(ExchangeObject(weights=shared)).metrics
        assert np.isfinite(metrics[kind.metric])
        assert same(client.evaluator.network.state_dict(), shared)
        client.finalize()
        best = torch.load(tmp_path / f"out_{number}" / "model.pt", weights_only=True)
        assert best.keys() == shared.keys()
