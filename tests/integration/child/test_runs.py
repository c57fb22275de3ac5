# SPDX-License-Identifier: Apache-2.0
"""A child bundle run as a user would: train, evaluate, infer, by one process or two."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import make_child
import nibabel as nib
import numpy as np
import pytest
import torch
from scripts.files import load_file
from scripts.networks import UNetBackbone
from support import run_bundle, tracked_runs, write_nifti

DOWNSTREAM = make_child.REPOSITORY / "downstream"


def test_train_evaluate_and_infer(bundle, dataset, tmp_path):
    """Of a linear layer on two decoder levels, whose number is told to the training alone, by its mode."""
    backbone, features = UNetBackbone(features=(4, 8, 8)), {"features": [4, 8, 8]}
    torch.save({f"backbone.{k}": v for k, v in backbone.state_dict().items()}, tmp_path / "pretrained.pt")
    few = {"epochs": 2, "epoch_length": 4, "learning_rate": 0.01, "pretrained": tmp_path / "pretrained.pt"}
    few |= {"bfloat16": True, "tracking": "mlflow", **features}
    done = run_bundle(bundle, "train", dataset_dir=dataset, output_dir=tmp_path / "run", mode="linear", **few)
    assert done.returncode == 0, done.stdout + done.stderr
    (tracked,) = tracked_runs(tmp_path / "run")
    assert [len(tracked["metrics"][name]) for name in ("train_loss", "train_dice", "val_dice")] == [8, 2, 2]
    (config,) = tracked["artifacts"].values()
    assert json.loads(config.read_text())["mode"] == "linear"
    assert "tensors" in done.stdout
    assert "\r" not in done.stderr
    assert re.search(r"epoch 2/2: 100%.* 8/8 .*loss=.*val_dice=", done.stderr)
    assert "6 train, 1 validation, 1 test cases" in done.stdout
    weights = torch.load(tmp_path / "run" / "model.pt", weights_only=True)
    for name, value in backbone.state_dict().items():  # frozen
        assert torch.equal(weights[f"backbone.{name}"], value)
    assert weights["head.weight"].shape[1] == 12

    trained = {"model": tmp_path / "run" / "model.pt", **features}
    done = run_bundle(bundle, "evaluate", dataset_dir=dataset, output_dir=tmp_path / "scores", **trained)
    assert done.returncode == 0, done.stdout + done.stderr
    with (tmp_path / "scores" / "dice_raw.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (tmp_path / "scores" / "worst.png").is_file()

    image = dataset / "imagesTr" / Path(row["filename"]).name
    done = run_bundle(bundle, "inference", image=image, output_dir=tmp_path / "predicted", **trained)
    assert done.returncode == 0, done.stdout + done.stderr
    (written,) = (tmp_path / "predicted").glob("*.nii.gz")
    predicted, scan = nib.load(written), nib.load(image)
    assert predicted.shape == scan.shape
    assert np.allclose(predicted.affine, scan.affine)
    assert set(np.unique(predicted.dataobj)) <= {0, 7}
    # what is scored is this label map, in the grid of the scan, against the label as it is
    both = [np.asarray(nib.load(path).dataobj) == 7 for path in (written, dataset / "labelsTr" / image.name)]
    dice = 2 * (both[0] & both[1]).sum() / (both[0].sum() + both[1].sum())
    assert float(row["blob"]) == pytest.approx(dice, abs=1e-4)


@pytest.mark.parametrize("partial", [True, False])
def test_a_structure_that_most_maps_lack_is_learned_where_this_is_told(dataset, tmp_path, partial):
    """The half of each blob that one map alone has drawn: left open in the others, or taken for background."""
    data = shutil.copytree(dataset, tmp_path / "data")
    for number, path in enumerate(sorted(data.glob("labelsTr/*.nii.gz"))):
        whole = nib.load(path)
        label = np.asarray(whole.dataobj).copy()
        half = np.arange(len(label))[:, None, None] * np.ones_like(label) > np.argwhere(label).mean(axis=0)[0]
        label[(label > 0) & half] = 3 if number in (0, 1) else 0
        path.unlink()
        write_nifti(path, label, whole.affine)
    described = json.loads((data / "dataset.json").read_text())
    described["labels"]["3"] = "half"
    (data / "dataset.json").write_text(json.dumps(described))
    given = [str(data), "half_mr_segmentation", "--out", str(tmp_path), "--features", "4", "8"]
    assert make_child.main(given) == 0
    few = {"mode": "fitted", "epochs": 3, "epoch_length": 20, "batch_size": 2, "num_workers": 1, "test_fraction": 0}
    few |= {"dataset_dir": data, "output_dir": tmp_path / "run", "partial_labels": partial}
    done = run_bundle(tmp_path / "half_mr_segmentation", "train", **few)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ("of 8, half in 2; what a map does not show counts as not there" in done.stdout) != partial
    scan = sorted((data / "imagesTr").iterdir())[-1]
    trained = {"model": tmp_path / "run" / "model.pt", "image": scan, "output_dir": tmp_path / "predicted"}
    done = run_bundle(tmp_path / "half_mr_segmentation", "inference", **trained)
    assert done.returncode == 0, done.stdout + done.stderr
    (written,) = (tmp_path / "predicted").glob("*.nii.gz")
    found = np.asarray(nib.load(written).dataobj)
    print(np.unique(found, return_counts=True))
    assert ((found == 3).sum() > 0.3 * (found == 7).sum()) == partial


def test_fine_tuning_never_ends_below_the_fitted_layer(bundle, dataset, tmp_path):
    """By default the layer as it was fitted competes too; ``--resume True`` in a new folder does not leave it out."""
    torch.manual_seed(0)
    torch.save(UNetBackbone(features=(4, 8, 8)).state_dict(), tmp_path / "pretrained.pt")
    ruinous = {"epochs": 1, "epoch_length": 3, "learning_rate": 30.0, "head_learning_rate": 300.0, "warmup_steps": 0}
    ruinous |= {"features": [4, 8, 8], "pretrained": tmp_path / "pretrained.pt", "resume": True}
    done = run_bundle(bundle, "train", dataset_dir=dataset, output_dir=tmp_path / "run", **ruinous)
    assert done.returncode == 0, done.stdout + done.stderr
    before, after = (float(value) for value in re.findall(r"val_dice: ([0-9.]+)", done.stdout + done.stderr))
    assert before > after
    assert f"best weights, those before the first epoch with val_dice {before:.4f}" in done.stdout
    kept, last = (load_file(tmp_path / "run" / name) for name in ("model.pt", "checkpoint.pt"))
    assert not torch.equal(kept["head.weight"], last["network"]["head.weight"])
    done = run_bundle(bundle, "train", dataset_dir=dataset, output_dir=tmp_path / "run", **ruinous | {"epochs": 2})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "last layer: fitted" not in done.stdout  # it goes on
    assert torch.equal(load_file(tmp_path / "run" / "model.pt")["head.weight"], kept["head.weight"])
    never = ruinous | {"val_interval": 2, "resume": False}  # nothing to compare with
    done = run_bundle(bundle, "train", dataset_dir=dataset, output_dir=tmp_path / "never", **never)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "weights of the last epoch (none was validated, see --val_interval)" in done.stdout


def test_two_processes_train_what_one_trains(bundle, dataset, tmp_path):
    """Half the batch each, with a Dice loss of each patch: that of the whole batch is no mean of its parts'."""
    few = {"mode": "scratch", "epochs": 2, "epoch_length": 3, "loss#batch": False, "dataset_dir": dataset}
    weights, measured = [], []
    for processes in (1, 2):
        output = tmp_path / str(processes)
        done = run_bundle(bundle, "train", processes=processes, batch_size=2 // processes, output_dir=output, **few)
        assert done.returncode == 0, done.stdout + done.stderr
        weights.append(load_file(output / "checkpoint.pt")["network"])
        measured.append([float(value) for value in re.findall(r"val_dice: ([0-9.]+)", done.stdout + done.stderr)])
    assert len(measured[0]) == 2
    assert measured[1] == pytest.approx(measured[0], abs=0.01)
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, rtol=2e-3, atol=2e-4, msg=name)


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        ("train", {"mode": "probe"}, "mode is one of fitted, finetune, linear, scratch"),
        ("train", {"mode": "scratch", "pretrained": "x.pt"}, "starts from random weights"),
        ("train", {"num_labelled": 100}, "num_labelled is 100"),
        ("inference", {"image": "missing.nii.gz", "load_pretrain": False}, "missing.nii.gz does not exist"),
        ("evaluate", {"model": "missing.pt"}, "missing.pt does not exist"),
        ("inference", {"decoder_levels": 2}, "decoder_levels is 1 to 1 with this backbone, not 2"),
    ],
)
def test_mistakes_get_one_line(bundle, dataset, tmp_path, config, settings, message):
    done = run_bundle(bundle, config, dataset_dir=dataset, output_dir=tmp_path, **settings)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert message in done.stderr.strip().splitlines()[-1]


def test_a_child_that_nobody_trained_says_so(bundle, dataset, tmp_path):
    torch.save(UNetBackbone(features=(4, 8)).state_dict(), tmp_path / "model.pt")
    start = [str(dataset), "new_mr_segmentation", "--out", str(tmp_path), "--start", str(tmp_path / "model.pt")]
    assert make_child.main([*start, "--features", "4", "8"]) == 0
    image = sorted((dataset / "imagesTr").iterdir())[0]
    done = run_bundle(tmp_path / "new_mr_segmentation", "inference", image=image, output_dir=tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "has learned nothing yet, it finds nothing: train it first" in done.stdout
    (written,) = (tmp_path / "out").glob("*.nii.gz")
    assert not np.asarray(nib.load(written).dataobj).any()


def test_copied_out_of_the_clone_it_says_what_to_take(tmp_path):
    name = "hippocampus_mr_segmentation"
    folder = shutil.copytree(DOWNSTREAM / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "runs"))
    done = run_bundle(folder, "inference", image="any.nii.gz")
    assert done.returncode != 0
    assert "Traceback" not in done.stdout + done.stderr
    assert done.stderr.strip().splitlines()[-1] == f"error: {folder} lacks its code: take dist/{name}.zip"


@pytest.mark.parametrize("elsewhere", [False, True])
def test_in_the_clone_it_works_from_anywhere(elsewhere, tmp_path):
    folder = DOWNSTREAM / "hippocampus_mr_segmentation"
    write_nifti(tmp_path / "scan.nii.gz", np.random.default_rng(0).normal(100, 10, (24, 30, 26)).astype(np.float32))
    where = {"cwd": tmp_path, "bundle_root": folder} if elsewhere else {}
    done = run_bundle(folder, "inference", image=tmp_path / "scan.nii.gz", output_dir=tmp_path / "out", **where)
    assert done.returncode == 0, done.stdout + done.stderr
    assert nib.load(tmp_path / "out" / "scan_seg.nii.gz").shape == (24, 30, 26)


def test_a_training_keeps_the_weights_that_are_there(bundle, dataset, tmp_path):
    """Those of the bundle, and those of an earlier training in the same folder."""
    shipped = bundle / "models" / "model.pt"
    torch.save({"kept": torch.zeros(1)}, shipped)
    few = {"epochs": 1, "epoch_length": 1, "mode": "scratch", "dataset_dir": dataset, "output_dir": tmp_path / "run"}
    done = run_bundle(bundle, "train", **few)
    assert done.returncode == 0, done.stdout + done.stderr
    assert load_file(shipped).keys() == {"kept"}
    first = (tmp_path / "run" / "model.pt").read_bytes()
    assert (tmp_path / "run" / "checkpoint.pt").is_file()
    done = run_bundle(bundle, "train", **few)
    assert done.returncode != 0
    assert "already holds a run: pass --resume True" in done.stderr.strip().splitlines()[-1]
    assert (tmp_path / "run" / "model.pt").read_bytes() == first
    shipped.unlink()
