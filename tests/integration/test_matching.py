# SPDX-License-Identifier: Apache-2.0

"""The configurations that use a model: inference, label propagation, features, correspondence, evaluation."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from make_phantoms import main as make_phantoms
from monai.bundle import ConfigWorkflow
from scripts.data import fingerprints
from scripts.errors import InputError, user_message
from scripts.networks import GVSL, AffineHead, DeformableHead, RestorationHead, UNetBackbone, ZMatchingHead
from scripts.training import write_settings

BUNDLE = Path(__file__).parents[2] / "bundle"
ZOOM = "scripts.transforms.Zoomd"
SETTINGS = {"pixdim": [10, 10, 10], "spatial_size": [28, 24, 24], "intensity": "window", "features": [4, 8, 16]}
for overlay in ("correlation_head", "convolution_head"):
    SETTINGS |= json.loads((BUNDLE / "configs" / f"{overlay}.json").read_text())
HEART = (205, 420, 500, 550, 600, 820, 850)


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms")
    assert make_phantoms([str(folder), "--subjects", "5", "--spacing", "10"]) == 0
    return folder


def made_network() -> GVSL:
    """Of the settings above."""
    matching = ZMatchingHead(AffineHead(16, 8), DeformableHead(4, 8))
    return GVSL(UNetBackbone(features=(4, 8, 16)), matching, RestorationHead(4, 1, 8))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """An untrained network whose heads are shaken, so that its maps are no identities."""
    torch.manual_seed(0)
    network = made_network()
    with torch.no_grad():
        network.matching_head.global_matching.parameters_of_map.weight.normal_(std=0.05)
        network.matching_head.local_matching.displacement.weight.normal_(std=0.05)
    path = tmp_path_factory.mktemp("model") / "model.pt"
    torch.save(network.state_dict(), path)
    return path


def run(names, model, output, monkeypatch, **overrides):
    """Run a configuration in this process, as ``python -m monai.bundle run`` does."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    workflow = ConfigWorkflow(
        config_file=[str(BUNDLE / "configs" / f"{name}.json") for name in names],
        workflow_type="train" if names[0] == "train" else "infer",
        logging_file=False,
        bundle_root=str(BUNDLE),
        model=str(model),
        output_dir=str(output),
        **{**SETTINGS, **overrides},
    )
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    workflow.initialize()
    problems = workflow.check_properties()
    workflow.run()
    workflow.finalize()
    return problems


def expect_refusal(message, *args, **kwargs):
    """The error that reaches the user is one line that matches."""
    with pytest.raises((InputError, RuntimeError)) as caught:
        run(*args, **kwargs)
    shown = user_message(caught.value)
    assert shown is not None
    assert message in shown


def test_inference_writes_in_the_fixed_scans_geometry(phantoms, model, tmp_path, monkeypatch):
    """Phantoms are stored in different orientations and spacings; everything comes in the fixed scan's own."""
    images, labels = phantoms / "imagesTr", phantoms / "labelsTr"
    fixed = images / "phantom_000.nii.gz"
    moving = {"moving": f"{images}/phantom_00[12].nii.gz", "moving_label": f"{labels}/phantom_00[12].nii.gz"}
    assert run(["inference"], model, tmp_path, monkeypatch, fixed=str(fixed), **moving) == []
    reference = nib.load(fixed)
    assert nib.aff2axcodes(reference.affine) != nib.aff2axcodes(nib.load(images / "phantom_001.nii.gz").affine)
    for name in ("phantom_001", "phantom_002"):
        folder = tmp_path / f"{name}_to_phantom_000"
        names = {path.name for path in folder.iterdir()}
        kinds = ("warped", "warped_label", "displacement", "jacobian", "probabilities")
        assert names == {*(f"{kind}.nii.gz" for kind in kinds), "affine.txt", "probabilities.txt"}
        for kind in kinds:
            written = nib.load(folder / f"{kind}.nii.gz")
            assert written.shape[:3] == reference.shape
            assert np.allclose(written.affine, reference.affine, atol=1e-4)
        carried = np.asarray(nib.load(folder / "warped_label.nii.gz").dataobj)
        assert set(np.unique(carried)) <= {0, *HEART}
        shares = nib.load(folder / "probabilities.nii.gz").get_fdata()
        codes = np.loadtxt(folder / "probabilities.txt")
        inside = shares.sum(-1) > 0.999
        agree = codes[shares.argmax(-1)][inside] == carried[inside]
        assert inside.mean() > 0.5
        assert agree.mean() > 0.95
        assert np.loadtxt(folder / "affine.txt").shape == (4, 4)


def test_matching_a_scan_with_itself_by_an_untrained_model_keeps_it(phantoms, tmp_path, monkeypatch):
    """Heads at zero are the identity: the other scan is the same file, so it comes back unchanged, in its geometry."""
    network = made_network()
    torch.save(network.state_dict(), tmp_path / "model.pt")
    scan = phantoms / "imagesTr" / "phantom_001.nii.gz"
    twin = tmp_path / "twin.nii.gz"
    twin.write_bytes(scan.read_bytes())
    out = tmp_path / "out"
    run(["inference"], tmp_path / "model.pt", out, monkeypatch, fixed=str(scan), moving=str(twin))
    warped = nib.load(out / "twin_to_phantom_001" / "warped.nii.gz").get_fdata()
    original = nib.load(scan).get_fdata()
    assert np.abs(warped - original)[1:-1, 1:-1, 1:-1].max() < 1
    assert np.allclose(np.loadtxt(out / "twin_to_phantom_001" / "affine.txt"), np.eye(4), atol=1e-4)
    jacobian = nib.load(out / "twin_to_phantom_001" / "jacobian.nii.gz").get_fdata()
    assert np.allclose(jacobian, 1, atol=1e-3)


@pytest.mark.parametrize("vote", ["majority", "similarity"])
def test_labels_for_a_folder(phantoms, model, tmp_path, monkeypatch, vote):
    atlas, label = ([f"{phantoms}/{part}/phantom_00{i}.nii.gz" for i in (0, 1)] for part in ("imagesTr", "labelsTr"))
    overrides = {"dataset_dir": str(phantoms), "atlas": atlas, "atlas_label": label, "vote": vote}
    assert run(["inference", "propagate"], model, tmp_path, monkeypatch, **overrides) == []
    names = [f"phantom_00{i}.nii.gz" for i in (2, 3, 4)]
    tables = ["propagation.csv", "results.csv", "scans.csv"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["confidence", *names, *tables]
    assert sorted(path.name for path in (tmp_path / "confidence").iterdir()) == names
    for path in tmp_path.glob("*.nii.gz"):
        written, scan = nib.load(path), nib.load(phantoms / "imagesTr" / path.name)
        assert written.shape == scan.shape
        assert np.allclose(written.affine, scan.affine, atol=1e-4)
        assert len(set(np.unique(written.dataobj)) & set(HEART)) >= 5


def test_labels_are_carried_in_rounds(phantoms, model, tmp_path, monkeypatch):
    """What make carry runs: one atlas, then one of its results corrected, which becomes an atlas of the others."""
    atlas, label = (str(phantoms / part / "phantom_000.nii.gz") for part in ("imagesTr", "labelsTr"))
    overrides = {"dataset_dir": str(phantoms), "atlas": atlas, "atlas_label": label}
    files, out = ["inference", "propagate", "plan", "carry"], tmp_path / "out"
    assert run(files, model, out, monkeypatch, **overrides) == []
    corrected = out / "corrected" / "phantom_002.nii.gz"
    corrected.parent.mkdir()
    corrected.write_bytes((phantoms / "labelsTr" / "phantom_002.nii.gz").read_bytes())
    run(files, model, out, monkeypatch, **overrides)
    with (out / "propagation.csv").open(newline="") as file:
        rows = {row["result"]: (row["atlases"], row["look_at"]) for row in csv.DictReader(file)}
    assert rows.pop("phantom_002") == ("", "corrected")
    assert set(rows) == {"phantom_001", "phantom_003", "phantom_004"}
    assert {atlases for atlases, _ in rows.values()} == {"2"}
    for name in [*rows, "phantom_002"]:
        written, scan = nib.load(out / f"{name}.nii.gz"), nib.load(phantoms / "imagesTr" / f"{name}.nii.gz")
        assert written.shape == scan.shape
        assert len(set(np.unique(written.dataobj)) & set(HEART)) >= 3
    assert (out / "carried.html").read_text().count("<article>") == 4


def test_features_are_written_per_scan(phantoms, model, tmp_path, monkeypatch):
    run(["inference", "features"], model, tmp_path, monkeypatch, dataset_dir=str(phantoms))
    assert np.load(tmp_path / "phantom_003_global.npy").shape == (16,)
    assert nib.load(tmp_path / "phantom_003_local.nii.gz").shape == (28, 24, 24, 4)
    assert len(list(tmp_path.iterdir())) == 12  # and results.csv, scans.csv


def test_correspondence_of_a_scan_with_itself_is_the_voxel(phantoms, tmp_path, monkeypatch):
    network = made_network()
    torch.save(network.state_dict(), tmp_path / "model.pt")
    scan, twin = phantoms / "imagesTr" / "phantom_002.nii.gz", tmp_path / "twin.nii.gz"
    twin.write_bytes(scan.read_bytes())
    voxel = [n // 2 for n in nib.load(scan).shape]
    options = {"fixed": str(scan), "moving": str(twin), "voxel": voxel}
    run(["inference", "correspond"], tmp_path / "model.pt", tmp_path / "out", monkeypatch, **options)
    found = json.loads(next((tmp_path / "out").rglob("correspondence.json")).read_text())
    assert np.allclose(found["by_match"]["voxel"], voxel, atol=0.02)
    spacing = nib.load(scan).header.get_zooms()
    offset = (np.array(found["by_features"]["voxel"]) - voxel) * spacing
    assert np.linalg.norm(offset) < 12  # the grid that was searched has 10 mm
    assert found["similarity"] > 0.8
    assert nib.load(next((tmp_path / "out").rglob("similarity.nii.gz"))).shape == nib.load(scan).shape


def test_evaluation_writes_every_measure(phantoms, model, tmp_path, monkeypatch):
    overrides = {"dataset_dir": str(phantoms), "validation_pairs": 3}
    assert run(["train", "evaluate"], model, tmp_path, monkeypatch, **overrides) == []
    summary = json.loads((tmp_path / "summary.json").read_text())
    names = {"ncc_before", "ncc_after", "dice_before", "dice_after", "hd95_before", "hd95_after", "folded_percentage"}
    names |= {"log_jacobian_std", "restoration_error_before", "restoration_error_after"}
    assert names <= set(summary["measures"])
    assert all(np.isfinite(value) for value in summary["measures"].values())
    assert 0 <= summary["features"]["neighbour_purity"] <= 1
    assert -1 <= summary["features"]["silhouette"] <= 1
    assert 0 <= summary["features"]["embedding_collapse"] <= 1
    assert [int(row["codes"]) for row in summary["structures"]] == sorted(HEART)
    lines = (tmp_path / "pairs.csv").read_text().splitlines()
    assert len(lines) == 4
    assert (tmp_path / "structures.csv").read_text().count("\n") == 8


def linked(phantoms, folder, labelled=(0, 1, 2, 3, 4)):
    """The phantoms by links, with label maps of some."""
    content = json.loads((phantoms / "dataset.json").read_text())
    (folder / "imagesTr").symlink_to(phantoms / "imagesTr")
    (folder / "labelsTr").mkdir(parents=True)
    for number in labelled:
        name = f"phantom_{number:03d}.nii.gz"
        (folder / "labelsTr" / name).symlink_to(phantoms / "labelsTr" / name)
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def test_evaluation_uses_a_folder_whole_and_no_pair_twice(phantoms, model, tmp_path, monkeypatch):
    run(["train", "evaluate"], model, tmp_path, monkeypatch, dataset_dir=str(phantoms), report=False)
    rows = [line.split(",")[:2] for line in (tmp_path / "pairs.csv").read_text().splitlines()[1:]]
    assert len({frozenset(row) for row in rows}) == len(rows) == 5
    assert len({scan for row in rows for scan in row}) == 5
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["scans"] == summary["pairs"] == summary["gains"]["dice"]["person_pairs"] == 5


@pytest.mark.parametrize(("labelled", "with_labels"), [((0, 3, 4), 3), ((2,), 0)])
@pytest.mark.parametrize("seed", [0, 1])
def test_evaluation_where_only_some_scans_have_labels(
    phantoms, model, tmp_path, monkeypatch, capsys, labelled, with_labels, seed
):
    """It ended in a KeyError after all the work, or dropped Dice in silence, as the seed had it."""
    (tmp_path / "data").mkdir()
    folder = linked(phantoms, tmp_path / "data", labelled)
    options = {"dataset_dir": str(folder), "seed": seed, "report": seed == 0}
    run(["train", "evaluate"], model, tmp_path / "out", monkeypatch, **options)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["pairs"] == 5
    assert summary["pairs_with_labels"] == with_labels
    assert ("dice_after" in summary["measures"]) == bool(with_labels)
    assert bool(summary["structures"]) == bool(with_labels)
    assert f"{len(labelled)} of 5 scans have a label map" in capsys.readouterr().out
    if with_labels:
        assert 0 <= summary["features"]["neighbour_purity"] <= 1


def test_scans_that_the_model_was_trained_on_are_left_out(phantoms, model, tmp_path, monkeypatch, capsys):
    copied = tmp_path / "run" / "model.pt"
    copied.parent.mkdir()
    copied.write_bytes(model.read_bytes())
    images = [str(phantoms / "imagesTr" / f"phantom_{number:03d}.nii.gz") for number in range(5)]
    write_settings(str(copied.parent), {}, fingerprints([{"image": path} for path in images[:2]]))
    options = {"dataset_dir": str(phantoms), "report": False}
    run(["train", "evaluate"], copied, tmp_path / "out", monkeypatch, **options)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["scans"] == 3
    assert summary["trained_on"] == {"scans": images[:2], "left_out": True}
    said = capsys.readouterr().out
    assert "trained on 2 of the 5 scans, which are left out" in said
    assert all(path in said for path in images[:2])
    run(["train", "evaluate"], copied, tmp_path / "all", monkeypatch, **options, held_back=False)
    assert json.loads((tmp_path / "all" / "summary.json").read_text())["scans"] == 5
    write_settings(str(copied.parent), {}, fingerprints([{"image": path} for path in images[:4]]))
    expect_refusal("too few are left", ["train", "evaluate"], copied, tmp_path / "none", monkeypatch, **options)


def test_evaluation_of_merged_structures_and_unknown_labels(phantoms, model, tmp_path, monkeypatch):
    """Structures can be merged by an entry of dataset.json; a code that it does not describe is refused."""
    content = json.loads((phantoms / "dataset.json").read_text())
    for part in ("imagesTr", "labelsTr"):
        (tmp_path / part).symlink_to(phantoms / part)
    content["halves"] = [
        {"value": 1, "name": "left", "source_values": [420, 500, 205]},
        {"value": 2, "name": "right", "source_values": [550, 600]},
    ]
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    options = {"dataset_dir": str(tmp_path), "validation_pairs": 2, "merged_labels": "halves"}
    run(["train", "evaluate"], model, tmp_path / "out", monkeypatch, **options)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [(row["codes"], row["structure"]) for row in summary["structures"]] == [
        ("420 500 205", "left"),
        ("550 600", "right"),
    ]
    missing = {**options, "merged_labels": "thirds"}
    expect_refusal("thirds", ["train", "evaluate"], model, tmp_path / "out", monkeypatch, **missing)
    del content["labels"]["820"]
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    expect_refusal("unknown label 820", ["train", "evaluate"], model, tmp_path / "out", monkeypatch, **options)


def test_evaluation_without_labels(phantoms, model, tmp_path, monkeypatch):
    overrides = {"dataset_dir": str(phantoms / "imagesTr"), "validation_pairs": 2}
    run(["train", "evaluate"], model, tmp_path / "out", monkeypatch, **overrides)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert "ncc_after" in summary["measures"]
    assert "dice_after" not in summary["measures"]
    assert set(summary["features"]) == {"embedding_collapse"}


def test_mistakes_are_named(phantoms, model, tmp_path, monkeypatch):
    images = phantoms / "imagesTr"
    pair = {"fixed": f"{images}/phantom_000.nii.gz", "moving": f"{images}/phantom_001.nii.gz"}
    expect_refusal("of another architecture", ["inference"], model, tmp_path, monkeypatch, **pair, features=[4, 8])
    expect_refusal("must have one letter", ["inference"], model, tmp_path, monkeypatch, **pair, orientation="XYZ")
    expect_refusal("does not exist: pass", ["inference"], tmp_path / "no.pt", tmp_path, monkeypatch, **pair)
    outside = {**pair, "voxel": [1000, 0, 0]}
    expect_refusal("lies outside", ["inference", "correspond"], model, tmp_path, monkeypatch, **outside)
    expect_refusal("--voxel", ["inference", "correspond"], model, tmp_path, monkeypatch, **pair)
    expect_refusal("outputs has no 'all'", ["inference"], model, tmp_path, monkeypatch, **pair, outputs=["all"])
    wrong = {**pair, "moving_label": f"{phantoms}/labelsTr/phantom_002.nii.gz"}
    expect_refusal("another geometry", ["inference"], model, tmp_path, monkeypatch, **wrong)


def test_training_starts_from_weights(phantoms, model, tmp_path, monkeypatch):
    """``pretrained`` fills the network before training, exactly or not at all."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)

    def start(output, **overrides):
        workflow = ConfigWorkflow(
            config_file=str(BUNDLE / "configs" / "train.json"),
            workflow_type="train",
            logging_file=False,
            bundle_root=str(BUNDLE),
            dataset_dir=str(phantoms),
            output_dir=str(output),
            pretrained=str(model),
            **{**SETTINGS, **overrides},
        )
        workflow.initialize()
        return workflow.network_def

    weights = torch.load(model, weights_only=True)
    network = start(tmp_path / "a", **{"network_def#matching_head#global_matching#hidden_channels": 8})
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())
    with pytest.raises((InputError, RuntimeError)) as caught:
        start(tmp_path / "b", features=[4, 8])
    assert "of another architecture" in (user_message(caught.value) or "")


def test_scans_that_do_not_meet_are_refused():
    from monai.data import MetaTensor
    from scripts.matching import world_match

    names = [MetaTensor(torch.rand(1, 1, 4, 4, 4), meta={"filename_or_obj": [name]}) for name in ("a", "b")]
    far = {"displacement": torch.full((1, 3, 4, 4, 4), 99.0)}
    with pytest.raises(InputError, match="b does not overlap a"):
        world_match({"image": names[0], "moving": names[1], "pred": far})


def test_configurations_agree():
    """What inference shares with training is the same; evaluation is laid over training and names none of it again."""
    train, inference, evaluate = (
        json.loads((BUNDLE / "configs" / f"{name}.json").read_text()) for name in ("train", "inference", "evaluate")
    )
    for name in (*sorted({*train["settings"]} - {"network_def", "spatial_size"}), "memory_format", "device"):
        assert train[name] == inference[name], name
        assert name not in evaluate
    assert evaluate["spatial_size"] == inference["spatial_size"]  # whole scans; training sees parts of them
    network = {key: value for key, value in train["network_def"].items() if key not in ("symmetric", "corrupted")}
    assert network == inference["network_def"]
    same = {name for name, value in evaluate.items() if train.get(name, ...) == value}
    assert same <= {"finalize"}
    prepared = [step for step in train["train"]["preprocessing_transforms"] if step["_target_"] != ZOOM]
    crop = evaluate["validate#preprocessing"]["transforms"][1]
    apart = ("CopyItemsd", crop["_target_"])
    kept = [step["_target_"] for step in inference["preprocessing"]["transforms"] if step["_target_"] not in apart]
    assert kept == [step["_target_"] for step in prepared]
    (inferred,) = (step for step in inference["preprocessing"]["transforms"] if step["_target_"] == crop["_target_"])
    assert inferred["mode"] == crop["mode"]
