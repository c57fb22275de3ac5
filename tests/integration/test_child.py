# SPDX-License-Identifier: Apache-2.0
"""A child bundle made from a data set, moved elsewhere, and run as a user would: train, evaluate, infer."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
from pathlib import Path

import make_child
import nibabel as nib
import numpy as np
import pytest
import torch
from child.choices import DERIVED, VALIDATION_OVERLAP, VALIDATION_SHARE, choose, epoch_length_for
from jsonschema import validate
from monai.bundle import ConfigParser
from scripts.files import load_file
from scripts.networks import UNetBackbone
from support import run_bundle, tracked_runs, write_nifti
from zoo.files import SCHEMA

NAME = "blob_mr_segmentation"
DOWNSTREAM = Path(__file__).resolve().parents[2] / "downstream"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, make_cohort):
    """Eight subjects; label code 7 in the files, and geometry that is neither RAS nor 1 mm."""
    folder = make_cohort(tmp_path_factory.mktemp("data"), subjects=8)
    affine = np.array([[0, -1.2, 0, 5], [1.2, 0, 0, -3], [0, 0, 1.5, 2], [0, 0, 0, 1]])
    for path in folder.glob("*Tr/*.nii.gz"):
        volume = np.asarray(nib.load(path).dataobj)
        scaled = volume * np.uint8(7) if path.parent.name == "labelsTr" else volume
        path.unlink()
        nib.save(nib.Nifti1Image(scaled, affine), path)
    described = json.loads((folder / "dataset.json").read_text())
    described |= {"modality": {"0": "MRI"}, "labels": {"0": "background", "7": "blob"}, "licence": "none needed"}
    (folder / "dataset.json").write_text(json.dumps(described))
    return folder


@pytest.fixture(scope="module")
def bundle(dataset, tmp_path_factory):
    out = tmp_path_factory.mktemp("elsewhere")
    assert make_child.main([str(dataset), NAME, "--out", str(out), "--features", "4", "8"]) == 0
    return out / NAME


def test_the_choices_follow_the_data(dataset):
    chosen = choose(dataset, NAME, {})
    assert chosen.settings["pixdim"] == [1.2, 1.2, 1.5]
    assert chosen.settings["patch_size"] == [24, 24, 24]
    assert (chosen.settings["epochs"], chosen.settings["epoch_length"]) == (50, 50)
    assert chosen.settings["intensity"] == "percentiles"
    assert chosen.settings["classes"] == [{"name": "blob", "codes": [7]}]


def test_a_voxel_size_that_blurs_the_data_is_told(dataset):
    assert choose(dataset, NAME, {}).notes == []
    padded, note = choose(dataset, NAME, {"pixdim": [5.0, 5.0, 5.0]}).notes
    assert "the rest is padding" in padded
    assert "made 3.9 times coarser along each axis: 1.2 x 1.2 x 1.5 mm become 5 x 5 x 5 mm" in note


def test_thick_slices_are_not_tilted(dataset):
    assert "rotation" not in choose(dataset, NAME, {}).settings
    assert choose(dataset, NAME, {"pixdim": [1.2, 1.2, 8.0]}).settings["rotation"] == [0, 0, 0.26]


def test_a_validation_does_not_dominate():
    """Three windows an axis of ten validation cases cost about 90 training steps: a fifth of 450."""
    assert epoch_length_for([96, 96, 96], [48, 48, 48], 67) == pytest.approx(4 * 27 * 11 / 3, abs=10)
    template = json.loads((make_child.CHILD / "segmentation" / "train.json").read_text(encoding="utf-8"))
    assert template["validate"]["inferer"]["overlap"] == VALIDATION_OVERLAP
    assert template["validation_fraction"] == VALIDATION_SHARE


@pytest.mark.parametrize("task", make_child.TASKS)
@pytest.mark.parametrize(("epochs", "max_epochs"), [(10, 10), (4, 10), (10, 1)])
def test_the_learning_rate_follows_the_epochs_that_are_trained(task, epochs, max_epochs):
    """MONAI Label and a resumed run make it longer; a federated client sets ``max_epochs`` to those of one round."""
    parser = ConfigParser()
    parser.read_config(str(make_child.CHILD / task / "train.json"))
    parser["epochs"] = epochs
    parser["train#trainer#max_epochs"] = max_epochs
    parser["epoch_length"] = 8
    parser["warmup_steps"] = 3
    factor = parser.get_parsed_content("lr_scheduler#lr_lambda")
    assert [factor(step) for step in (0, 1, 3, 40, 80, 88)] == pytest.approx(
        [0.25, 0.5 * (1 - 1 / 80) ** 0.9, (1 - 3 / 80) ** 0.9, 0.5**0.9, 0, 0]
    )


@pytest.mark.parametrize("task", make_child.TASKS)
def test_the_learning_rate_rises_by_step(task):
    """A change by epoch would make of a warm-up of 20 steps one of 20 epochs."""
    template = json.loads((make_child.CHILD / task / "train.json").read_text(encoding="utf-8"))
    schedule = next(h for h in template["train"]["handlers"] if h["_target_"] == "LrScheduleHandler")
    assert schedule["epoch_level"] is False


class TestSeveralChannels:
    """Two contrasts: in files of their own as nnU-Net has them, or in one file as the Decathlon has them."""

    @pytest.fixture(scope="class")
    def both(self, dataset, tmp_path_factory):
        """The same cases in both layouts: the scan, and the scan upside down in another scale."""
        nnunet, decathlon = (tmp_path_factory.mktemp(name) for name in ("nnunet", "decathlon"))
        for path in sorted((dataset / "imagesTr").iterdir()):
            scan = nib.load(path)
            contrasts = [scan.get_fdata(dtype=np.float32), 5 - 3 * scan.get_fdata(dtype=np.float32)]
            case = path.name.removesuffix(".nii.gz")
            for number, volume in enumerate(contrasts):
                write_nifti(nnunet / "imagesTr" / f"{case}_{number:04d}.nii.gz", volume, scan.affine)
            write_nifti(decathlon / "imagesTr" / path.name, np.stack(contrasts, axis=-1), scan.affine)
            for folder in (nnunet, decathlon):
                (folder / "labelsTr").mkdir(exist_ok=True)
                shutil.copy(dataset / "labelsTr" / path.name, folder / "labelsTr")
        described = json.loads((dataset / "dataset.json").read_text())
        labels = {"background": 0, "blob": 7}
        told = {"channel_names": {"0": "T1", "1": "T2"}, "labels": labels, "file_ending": ".nii.gz", "numTraining": 8}
        (nnunet / "dataset.json").write_text(json.dumps(told))
        (decathlon / "dataset.json").write_text(json.dumps({**described, "modality": {"0": "T1", "1": "T2"}}))
        return nnunet, decathlon

    @pytest.fixture(scope="class")
    def children(self, both, tmp_path_factory):
        start = tmp_path_factory.mktemp("start") / "model.pt"
        torch.manual_seed(0)
        torch.save(UNetBackbone(features=(4, 8)).state_dict(), start)
        out = [tmp_path_factory.mktemp("child") for _ in both]
        for folder, where in zip(both, out, strict=True):
            options = ["--out", str(where), "--features", "4", "8", "--start", str(start)]
            assert make_child.main([str(folder), NAME, *options]) == 0
        return [where / NAME for where in out]

    @staticmethod
    def parsed(child, **settings):
        parser = ConfigParser()
        parser.read_config(str(child / "configs" / "inference.json"))
        parser.update({"bundle_root": str(child), **settings})
        return parser

    def test_both_layouts_give_the_same_child_and_image(self, both, children):
        read = []
        for folder, child in zip(both, children, strict=True):
            parser = self.parsed(child, dataset_dir=str(folder), output_dir=None)
            assert parser["in_channels"] == 2
            data = parser.get_parsed_content("dataset")
            assert len(data) == 8
            read.append(data[3]["image"])
            format_ = json.loads((child / "configs" / "metadata.json").read_text())["network_data_format"]
            assert format_["inputs"]["image"]["channel_def"] == {"0": "T1", "1": "T2"}
        assert torch.equal(*read)
        assert torch.allclose(read[0][0], 1 - read[0][1], atol=1e-5)  # each channel is scaled by itself

    def test_a_repeated_image_gives_what_one_channel_gives(self, children, bundle, dataset, tmp_path):
        scan = nib.load(dataset / "imagesTr" / "subject_2.nii.gz")
        volume = scan.get_fdata(dtype=np.float32)
        write_nifti(tmp_path / "twice.nii.gz", np.stack([volume, volume], axis=-1), scan.affine)
        several, one = self.parsed(children[1]), self.parsed(bundle)
        network = several.get_parsed_content("network_def")
        network.load_state_dict(load_file(children[1] / "models" / "model.pt"))
        single = one.get_parsed_content("network_def")
        torch.manual_seed(0)
        single.backbone.load_state_dict(UNetBackbone(features=(4, 8)).state_dict())  # the one that it started with
        single.head.load_state_dict(network.head.state_dict())
        images = [
            parser.get_parsed_content("preprocessing")({"image": str(path)})["image"][None]
            for parser, path in ((several, tmp_path / "twice.nii.gz"), (one, dataset / "imagesTr" / "subject_2.nii.gz"))
        ]
        assert [image.shape[1] for image in images] == [2, 1]
        with torch.no_grad():
            found, wanted = network.eval()(images[0]), single.eval()(images[1])
        assert torch.allclose(found.as_tensor(), wanted.as_tensor(), atol=1e-5)

    def test_it_trains_and_infers(self, both, children, tmp_path):
        for folder, child, image in zip(both, children, ("subject_0_0000", "subject_0"), strict=True):
            run = tmp_path / folder.name
            start = child / "models" / "model.pt"
            few = {"epochs": 1, "epoch_length": 1, "pretrained": start}
            done = run_bundle(child, "train", dataset_dir=folder, output_dir=run, **few)
            assert done.returncode == 0, done.stdout + done.stderr
            path = folder / "imagesTr" / f"{image}.nii.gz"
            done = run_bundle(child, "inference", image=path, model=run / "model.pt", output_dir=run / "predicted")
            assert done.returncode == 0, done.stdout + done.stderr
            (written,) = (run / "predicted").glob("*.nii.gz")
            assert nib.load(written).shape == (24, 24, 24)
            assert set(np.unique(nib.load(written).dataobj)) <= {0, 7}

    def test_a_missing_channel_is_named(self, both, tmp_path, capsys):
        """The plan leaves such a scan out, with a line; a training refuses it."""
        for folder, path, what in (
            (both[0], "subject_3_0001.nii.gz", "has a further channel"),
            (both[1], "subject_3.nii.gz", "holds 1 of 2 channels"),
        ):
            broken = shutil.copytree(folder, tmp_path / folder.name)
            (broken / "imagesTr" / path).unlink()
            if folder == both[1]:
                write_nifti(broken / "imagesTr" / path, np.random.default_rng(0).normal(size=(24, 24, 24)))
            assert make_child.main([str(broken), NAME, "--out", str(tmp_path / folder.name / "out")]) == 0
            said = capsys.readouterr().out
            assert "left out 1 of 8 scans" in said
            assert what in said
            assert "subject_3" in said


def test_the_budget_of_memory_sets_the_patch(dataset):
    """The parent's plan: less memory, smaller patches; never above what the scan needs."""
    assert choose(dataset, NAME, {"pixdim": [0.5, 0.5, 0.5]}).settings["patch_size"] == [64, 64, 72]
    small = choose(dataset, NAME, {"pixdim": [0.5, 0.5, 0.5]}, memory=1)
    assert np.prod(small.settings["patch_size"]) <= (0.8e9 - 0.5e9) / (2200 + 110 * 16)
    assert "at most 75,757 voxels" in small.reasons["patch_size"]


def test_made_again_it_has_the_same_bytes(bundle, dataset, tmp_path):
    assert make_child.main([str(dataset), NAME, "--out", str(tmp_path), "--features", "4", "8"]) == 0
    first = {
        p.relative_to(bundle): p.read_bytes() for p in bundle.rglob("*") if p.is_file() and "models" not in p.parts
    }
    again = {p.relative_to(tmp_path / NAME): p.read_bytes() for p in (tmp_path / NAME).rglob("*") if p.is_file()}
    assert {name for name in first if "__pycache__" not in name.parts and "runs" not in name.parts} == set(again)
    assert all(first[name] == content for name, content in again.items())


def test_metadata_fits_the_schema(bundle):
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    validate(metadata, json.loads(SCHEMA.read_text()))
    assert metadata["version"] in metadata["changelog"]
    assert metadata["network_data_format"]["outputs"]["pred"]["channel_def"] == {"0": "background", "1": "blob"}


def test_train_evaluate_and_infer(bundle, dataset, tmp_path):
    backbone = UNetBackbone(features=(4, 8))
    torch.save({f"backbone.{k}": v for k, v in backbone.state_dict().items()}, tmp_path / "pretrained.pt")
    few = {"epochs": 2, "epoch_length": 4, "learning_rate": 0.01, "pretrained": tmp_path / "pretrained.pt"}
    few |= {"bfloat16": True, "tracking": "mlflow"}
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

    trained = {"model": tmp_path / "run" / "model.pt"}
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
        ("train", {"mode": "probe"}, "mode is one of finetune, linear, scratch"),
        ("train", {"mode": "scratch", "pretrained": "x.pt"}, "starts from random weights"),
        ("train", {"num_labelled": 100}, "num_labelled is 100"),
        ("inference", {"image": "missing.nii.gz", "load_pretrain": False}, "missing.nii.gz does not exist"),
        ("evaluate", {"model": "missing.pt"}, "missing.pt does not exist"),
    ],
)
def test_mistakes_get_one_line(bundle, dataset, tmp_path, config, settings, message):
    done = run_bundle(bundle, config, dataset_dir=dataset, output_dir=tmp_path, **settings)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert message in done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modality": {"0": "US"}}, "names the modality 'US'"),
        ({"labels": {"0": "background"}}, "no structure"),
        ({"labels": ["background"]}, "no structure"),
        ({"labels": "background"}, 'needs "labels"'),
    ],
)
def test_a_description_that_will_not_do(dataset, tmp_path, capsys, change, message):
    described = json.loads((dataset / "dataset.json").read_text()) | change
    for name in ("imagesTr", "labelsTr"):
        (tmp_path / name).symlink_to(dataset / name)
    (tmp_path / "dataset.json").write_text(json.dumps(described))
    assert make_child.main([str(tmp_path), NAME, "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("make_child: error:")
    assert message in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["Blob_mr_segmentation", "blob_segmentation", "blob_mr_v1_segmentation", "../x"])
def test_a_name_the_zoo_would_refuse(dataset, tmp_path, name):
    with pytest.raises(SystemExit):
        make_child.main([str(dataset), name, "--out", str(tmp_path)])


def test_a_bundle_is_not_overwritten_unasked(bundle, dataset):
    with pytest.raises(SystemExit):
        make_child.main([str(dataset), NAME, "--out", str(bundle.parent)])


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


@pytest.mark.parametrize("folder", sorted(DOWNSTREAM.glob("*/")), ids=lambda folder: folder.name)
def test_committed_children_borrow_the_shared_code(folder):
    assert [path.name for path in (folder / "scripts").rglob("*.py")] == ["__init__.py"]


COMMITTED = make_child.committed()
TRAINED = sorted(name for name, made in COMMITTED.items() if "training" in made)


def test_committed_children_are_what_the_tool_makes_without_any_data(tmp_path):
    assert make_child.main(["--all", "--out", str(tmp_path)]) == 0
    assert {folder.name for folder in DOWNSTREAM.glob("*/")} == set(COMMITTED)
    for name in COMMITTED:
        made = {
            path.relative_to(tmp_path): path.read_bytes() for path in (tmp_path / name).rglob("*") if path.is_file()
        }
        weights = made.pop(Path(name, "models", "model.pt"), None)
        assert (weights is None) == (name in TRAINED)
        folders = [DOWNSTREAM / name / part for part in ("configs", "docs", "scripts")]
        committed = [path for part in folders for path in part.rglob("*") if "__pycache__" not in path.parts]
        committed = [*(path for path in committed if path.is_file()), DOWNSTREAM / name / "LICENSE"]
        assert set(made) == {path.relative_to(DOWNSTREAM) for path in committed}
        for path, content in made.items():
            assert content == (DOWNSTREAM / path).read_bytes(), path


@pytest.mark.parametrize("name", TRAINED)
def test_a_description_holds_what_is_measured_on_the_data(name, shared_data):
    line = [str(shared_data / COMMITTED[name]["data"]), name, *COMMITTED[name]["arguments"]]
    arguments = make_child.command_line().parse_args(line)
    given = make_child.given_settings(arguments)
    measured = choose(arguments.dataset, name, given)
    described = json.loads((make_child.DESCRIPTIONS / f"{name}.json").read_text(encoding="utf-8"))
    assert measured.described(given) == described
    assert choose(make_child.DESCRIPTIONS / f"{name}.json", name, {}).settings == measured.settings


@pytest.mark.parametrize("name", sorted(COMMITTED))
def test_a_child_differs_from_its_template_by_its_settings_alone(name):
    """What a reader has to know of one child stands in its description."""
    described = json.loads((make_child.DESCRIPTIONS / f"{name}.json").read_text(encoding="utf-8"))
    choices = choose(make_child.DESCRIPTIONS / f"{name}.json", name, {})
    for file in ("train", "inference", "evaluate", "multi_gpu_train"):
        own, template = (
            json.loads((folder / f"{file}.json").read_text(encoding="utf-8"))
            for folder in (DOWNSTREAM / name / "configs", make_child.CHILD / choices.task)
        )
        different = {key for key in own if own[key] != template[key]}
        assert list(own) == list(template)
        assert different <= {*described["settings"], *DERIVED}
        assert not different or file in ("train", "inference")


@pytest.mark.parametrize("name", TRAINED)
def test_the_model_card_is_that_of_the_weights(name):
    card = make_child.read_card(name)
    assert card["sha256"] == hashlib.sha256((DOWNSTREAM / name / "models" / "model.pt").read_bytes()).hexdigest()
    assert card["sha256"] in (DOWNSTREAM / name / "docs" / "README.md").read_text(encoding="utf-8")
    assert card["trained"]


@pytest.mark.parametrize("name", sorted(COMMITTED))
def test_a_child_names_the_terms_of_its_beginning(name):
    assert "gvsl_ct_mr_pretraining" in (DOWNSTREAM / name / "docs" / "data_license.txt").read_text(encoding="utf-8")


def test_weights_that_nobody_trained_are_the_same_each_time(tmp_path):
    name = "coronary_ct_segmentation"
    choices = choose(make_child.DESCRIPTIONS / f"{name}.json", name, {})
    for out in ("first", "second"):
        make_child.make_child(choices, tmp_path / out, make_child.PRETRAINED, whole=False)
    first, second = (load_file(tmp_path / out / "models" / "model.pt") for out in ("first", "second"))
    pretrained = UNetBackbone.from_pretrained(make_child.PRETRAINED).state_dict()
    assert all(torch.equal(first[key], value) for key, value in second.items())
    assert all(torch.equal(first[f"backbone.{key}"], value) for key, value in pretrained.items())


def test_the_start_is_the_pretrained_backbone_under_a_new_layer(dataset, tmp_path):
    backbone = UNetBackbone(features=(4, 8))
    torch.save({f"backbone.{k}": v for k, v in backbone.state_dict().items()}, tmp_path / "model.pt")
    start = [str(dataset), NAME, "--out", str(tmp_path / "out"), "--start", str(tmp_path / "model.pt")]
    assert make_child.main([*start, "--features", "4", "8"]) == 0
    path = tmp_path / "out" / NAME / "models" / "model.pt"
    weights = torch.load(path, weights_only=True)
    assert all(torch.equal(weights[f"backbone.{k}"], v) for k, v in backbone.state_dict().items())
    assert set(weights) - {f"backbone.{k}" for k in backbone.state_dict()} == {"head.weight", "head.bias"}
    before = path.read_bytes()
    assert make_child.main([*start, "--features", "4", "8", "--force"]) == 0
    assert path.read_bytes() == before


def test_a_start_of_other_channels_is_refused(dataset, tmp_path, capsys):
    torch.save(UNetBackbone(features=(4, 8)).state_dict(), tmp_path / "model.pt")
    start = [str(dataset), NAME, "--out", str(tmp_path / "out"), "--start", str(tmp_path / "model.pt")]
    assert make_child.main([*start, "--features", "8", "16"]) == 1
    assert "--features must be those of" in capsys.readouterr().err.strip().splitlines()[-1]
