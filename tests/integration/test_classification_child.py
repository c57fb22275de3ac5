# SPDX-License-Identifier: Apache-2.0

"""A child bundle that tells classes of patients apart, run as a user would: train, evaluate, infer."""

from __future__ import annotations

import csv
import json
import re

import make_child
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow
from scripts.errors import user_message
from scripts.files import load_file
from scripts.networks import UNetBackbone
from support import run_bundle, tracked_runs, write_nifti

NAME = "blob_mr_classification"
SIZE = 16
DECODER = list(UNetBackbone(features=(4, 8)).ups.parameters())
TABLE = ["--table", "patients.csv", "--id", "patient", "--target", "ill", "--subject_key", "p[0-9]+"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Ten patients of two scans each; the ill ones, every other, have a large bright cube."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    scans = []
    for patient in range(10):
        for visit in "ab":
            volume = rng.normal(100, 10, (SIZE, SIZE, SIZE)).astype(np.float32)
            low, size = rng.integers(2, 4), 10 if patient % 2 else 3
            volume[low : low + size, low : low + size, low : low + size] += 100
            name = f"imagesTr/p{patient}_{visit}.nii.gz"
            write_nifti(folder / name, volume, np.diag([1, 1, 2, 1]))
            scans.append(name)
    description = {"name": "Blobs", "description": "Cubes", "licence": "none needed", "modality": {"0": "MRI"}}
    described = {**description, "training": scans}
    (folder / "dataset.json").write_text(json.dumps(described), encoding="utf-8")
    rows = [f"p{patient},{'yes' if patient % 2 else 'no'}" for patient in range(10)]
    (folder / "patients.csv").write_text("\n".join(["patient,ill", *rows]), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def bundle(dataset, tmp_path_factory):
    out = tmp_path_factory.mktemp("elsewhere")
    assert make_child.main([str(dataset), NAME, "--out", str(out), "--features", "4", "8", *TABLE]) == 0
    return out / NAME


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_train_evaluate_and_infer(bundle, dataset, tmp_path):
    torch.manual_seed(0)
    backbone = UNetBackbone(features=(4, 8))
    torch.save({f"backbone.{k}": v for k, v in backbone.state_dict().items()}, tmp_path / "pretrained.pt")
    course = {"epochs": 6, "epoch_length": 6, "learning_rate": 0.01, "pretrained": tmp_path / "pretrained.pt"}
    course |= {"bfloat16": True, "tracking": "mlflow"}
    done = run_bundle(bundle, "train", dataset_dir=dataset, output_dir=tmp_path / "run", **course)
    assert done.returncode == 0, done.stdout + done.stderr
    (tracked,) = tracked_runs(tmp_path / "run")
    assert [len(tracked["metrics"][name]) for name in ("train_loss", "train_auc", "val_auc")] == [36, 6, 6]
    assert len(tracked["artifacts"]) == 1
    count = len(backbone.state_dict())
    assert f"backbone: {count} of {count} tensors" in done.stdout
    assert "12 train, 4 validation, 4 test cases" in done.stdout
    assert re.search(r"val_auc best value: 1\.0", done.stdout + done.stderr)

    # from elsewhere, as a scheduler would
    trained = {"model": tmp_path / "run" / "model.pt"}
    where = {"bundle_root": bundle, "output_dir": tmp_path / "scores", "dataset_dir": dataset, **trained}
    done = run_bundle(bundle, "evaluate", cwd=tmp_path, **where)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(rows_of(tmp_path / "scores" / "scores.csv")) == 4
    subjects = rows_of(tmp_path / "scores" / "subjects.csv")
    assert [(row["scans"], row["true"]) for row in subjects] == [("2", "no"), ("2", "yes")]
    summary = json.loads((tmp_path / "scores" / "summary.json").read_text())
    assert summary["subjects"]["auc"] == 1
    assert sum(sum(row.values()) for row in summary["scans"]["confusion"].values()) == 4

    done = run_bundle(
        bundle, "inference", dataset_dir=dataset / "imagesTr", output_dir=tmp_path / "predicted", **trained
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = rows_of(tmp_path / "predicted" / "predictions.csv")
    assert len(rows) == 20
    chances = [float(row["probability of yes"]) for row in rows]
    assert np.mean(chances[2::4]) > np.mean(chances[0::4])
    assert rows[0].keys() == {"image", "predicted", "probability of no", "probability of yes"}

    image = dataset / "imagesTr" / "p3_a.nii.gz"
    done = run_bundle(bundle, "inference", image=image, output_dir=tmp_path / "one", **trained)
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = rows_of(tmp_path / "one" / "predictions.csv")
    assert row == next(other for other in rows if other["image"].endswith("p3_a.nii.gz")) | {"image": str(image)}
    parts = [row["part"] for row in rows_of(tmp_path / "run" / "scans.csv")]
    assert [parts.count(part) for part in ("train", "validation", "test")] == [12, 4, 4]
    assert [row["part"] for row in rows_of(tmp_path / "scores" / "scans.csv")] == [""] * 4

    # predictions of other scans are not overwritten, those of the same are
    other = run_bundle(bundle, "inference", image=image, output_dir=tmp_path / "predicted", **trained)
    assert other.returncode != 0
    assert "holds results of other scans" in other.stderr
    assert rows_of(tmp_path / "predicted" / "predictions.csv") == rows


def test_two_processes_train_what_one_trains(bundle, dataset, tmp_path):
    weights, measured = [], []
    for processes in (1, 2):
        output = tmp_path / str(processes)
        course = {"mode": "scratch", "epochs": 2, "epoch_length": 4, "batch_size": 4 // processes}
        course |= {"dataset_dir": dataset, "output_dir": output}
        done = run_bundle(bundle, "train", processes=processes, **course)
        assert done.returncode == 0, done.stdout + done.stderr
        weights.append(load_file(output / "checkpoint.pt")["network"])
        measured.append(re.findall(r"val_auc: ([0-9.]+)", done.stdout + done.stderr))
    assert len(measured[0]) == 2
    assert measured[1] == measured[0]
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, rtol=2e-3, atol=2e-4, msg=name)


@pytest.fixture
def workflow(bundle, dataset, tmp_path, restored_process):
    """A configuration of the bundle in this process."""

    def make(config, kind, **settings):
        files = ("train", "evaluate") if config == "evaluate" else (config,)
        return ConfigWorkflow(
            config_file=[str(bundle / f"configs/{file}.json") for file in files],
            meta_file=str(bundle / "configs/metadata.json"),
            logging_file=False,
            workflow_type=kind,
            **{"bundle_root": str(bundle), "dataset_dir": str(dataset), "output_dir": str(tmp_path), **settings},
        )

    return make


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        ("train", {"table#file": "none.csv"}, "none.csv does not exist"),
        ("train", {"table#target": "sick"}, "no column 'sick'"),
        ("train", {"subject_key": "p[0-9]+_[ab]"}, "subject p9_b (1 scan) has no row"),
        ("train", {"num_labelled": 1}, "no case of the training part shows yes"),
        ("train", {"test_fraction": 0.6, "validation_fraction": 0.35}, "5 subjects of class no are too few"),
        ("train", {"mode": "probe"}, "mode is one of finetune, linear, scratch"),
        ("evaluate", {"part": "tset"}, "part 'tset' has no case"),
        ("inference", {"image": "missing.nii.gz"}, "missing.nii.gz does not exist"),
    ],
)
def test_mistakes_are_told_before_anything_runs(workflow, capsys, config, settings, message):
    made = workflow(config, "infer" if config == "inference" else "train", load_pretrain=False, **settings)

    def whole():
        made.initialize()
        made.run()

    with pytest.raises(Exception) as caught:  # noqa: PT011  (MONAI wraps errors in its own)
        whole()
    assert message in str(user_message(caught.value)).splitlines()[-1]
    assert "Epoch" not in "".join(capsys.readouterr())


def test_a_mistake_on_the_command_line_gets_its_lines_alone(bundle, dataset, tmp_path):
    done = run_bundle(bundle, "train", dataset_dir=dataset, output_dir=tmp_path, **{"table#target": "sick"})
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "no column 'sick'" in done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(("config", "kind"), [("train", "train"), ("evaluate", "train"), ("inference", "infer")])
def test_what_a_bundle_checker_asks(bundle, workflow, config, kind):
    made = workflow(config, kind, load_pretrain=False)
    made.initialize()
    assert made.check_properties() == []
    metadata = json.loads((bundle / "configs/metadata.json").read_text())
    size = metadata["network_data_format"]["inputs"]["image"]["spatial_shape"]
    output = metadata["network_data_format"]["outputs"]["pred"]
    logits = made.network_def(torch.zeros(1, 1, *size))
    assert logits.shape == (1, output["num_channels"])
    assert output["channel_def"] == {"0": "no", "1": "yes"}


@pytest.mark.parametrize(("mode", "rate", "trained"), [("linear", 0.02, 2), ("finetune", 0.0005, None)])
def test_a_probe_trains_its_layer_alone_and_faster(workflow, mode, rate, trained):
    made = workflow("train", "train", mode=mode)
    made.initialize()
    (group,) = made.parser.get_parsed_content("optimizer").param_groups
    assert group["lr"] == rate
    assert len(group["params"]) == (trained or 2 + len(list(made.network_def.backbone.parameters())) - len(DECODER))
