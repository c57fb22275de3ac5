# SPDX-License-Identifier: Apache-2.0

"""A model's evaluation: its measures, the scans it takes, with labels, some, merged ones or none."""

from __future__ import annotations

import json

import numpy as np
import pytest
from matching_runs import HEART, expect_refusal, run
from scripts.data import fingerprints
from scripts.training import write_settings


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
