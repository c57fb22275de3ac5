# SPDX-License-Identifier: Apache-2.0

"""The comparison with other registrations: scores of fields that are known, which subjects, a whole run, mistakes."""

from __future__ import annotations

import csv
import json
import shutil

import compare
import nibabel as nib
import numpy as np
import pytest
import torch
from comparison.atlases import list_targets
from comparison.methods import DEFAULT, PACKAGES
from comparison.scans import Scan, count_seen, labelled_scans, list_pairs_of, read_scan_of
from comparison.scoring import inverse_consistency, on_own_grid, score
from comparison.tables import markdown, summarise, title_of
from scripts.data import fingerprint, split_subjects
from scripts.errors import InputError
from scripts.spatial import transform_points, voxel_grid
from support import write_nifti

FIXED = torch.tensor([[0.0, -2.0, 0.0, 30.0], [1.5, 0.0, 0.0, -4.0], [0.0, 0.0, 2.0, 1.0], [0, 0, 0, 1]]).double()
MOVING = torch.diag(torch.tensor([1.5, 2.0, 2.0, 1.0])).double()
SIZE = (16, 14, 12)
TURN = torch.tensor([[0.95, -0.2, 0.0, 4.0], [0.2, 0.95, 0.1, -3.0], [0.0, -0.1, 1.0, 2.0], [0, 0, 0, 1]]).double()
"""Fixed to moving, in millimetres."""


def places(affine, size=SIZE):
    return transform_points(affine, voxel_grid(size, torch.zeros(1).double()))


def field_of(matrix, affine, size=SIZE):
    return transform_points(matrix, places(affine, size)) - places(affine, size)


def scan(affine, inside):
    """A scan with one structure: the points of its space for which it says so."""
    label = inside(places(affine)).float()[None]
    return Scan("scan.nii.gz", "label.nii.gz", label, label, affine)


def ball(points):
    return (points - torch.tensor([9.0, 12.0, 10.0]).reshape(3, 1, 1, 1)).norm(dim=0) < 6


@pytest.fixture(scope="module")
def pair():
    """A ball in the moving scan, and where the map has it in the fixed one, on a turned grid."""
    return scan(FIXED, lambda points: ball(transform_points(TURN, points))), scan(MOVING, ball)


def test_a_true_map_carries_labels_and_comes_back(pair):
    there, back = field_of(TURN, FIXED), field_of(torch.linalg.inv(TURN), MOVING)
    found = score(there, *pair, 1)
    assert found["dice"] > 0.9
    assert found["dice"] > score(torch.zeros_like(there), *pair, 1)["dice"] + 0.1
    assert found["hd95"] <= 2.5  # a voxel is 2 mm long
    assert found["folded"] == 0
    assert found["log_jacobian_std"] == pytest.approx(0, abs=1e-6)
    assert inverse_consistency(there, back, *pair) == pytest.approx(0, abs=1e-3)
    shift = torch.tensor([0.0, 3.0, 4.0]).reshape(3, 1, 1, 1)
    assert inverse_consistency(there, back + shift, *pair) == pytest.approx(5, abs=1e-3)


def test_folds_are_counted(pair):
    mirrored = field_of(torch.diag(torch.tensor([-1.0, 1, 1, 1])).double(), FIXED)
    assert score(mirrored, *pair, 1)["folded"] == 100


def test_a_field_of_another_grid_goes_on_as_its_affine_part(pair):
    grid = torch.diag(torch.tensor([4.0, 4.0, 4.0, 1.0])).double()
    grid[:3, 3] = torch.tensor([10.0, -3.0, 3.0])
    moved = on_own_grid(field_of(TURN, grid, (5, 5, 4)), grid, TURN, pair[0])
    assert torch.allclose(moved.double(), field_of(TURN, FIXED), atol=1e-3)


def test_a_failed_match_counts_as_nothing_found():
    row = {"method": "m", "voxels": 10, "cpu_seconds": 2.0, "failed": 0, "dice": 0.8, "hd95": 1.0}
    found = summarise([row, {**row, "dice": 0.0, "hd95": np.nan, "failed": 1}])
    assert found["m"]["dice"] == pytest.approx(0.4)
    assert found["m"]["hd95"] == 1
    assert found["m"]["voxels_per_second"] == 5
    columns = ("folded", "log_jacobian_std", "inverse_consistency")
    table = markdown({"m": {**found["m"], **dict.fromkeys(columns, np.nan)}})
    assert "failed" in table
    assert "folded" not in table  # nothing is known of it


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """A folder of ten subjects, a bright box each, somewhere else."""
    folder = tmp_path_factory.mktemp("labelled")
    generator = np.random.default_rng(0)
    for number in range(10):
        label = np.zeros((18, 16, 14), np.uint8)
        x, y, z = generator.integers(3, 6, 3)
        label[x : x + 8, y : y + 7, z : z + 5] = 1
        image = label * 100 + generator.normal(size=label.shape)
        for kind, volume in (("images", image.astype(np.float32)), ("labels", label)):
            write_nifti(folder / f"{kind}Tr" / f"s{number}.nii.gz", volume, np.diag([2.0, 2.0, 2.0, 1.0]))
    training = [{"image": f"imagesTr/s{n}.nii.gz", "label": f"labelsTr/s{n}.nii.gz"} for n in range(10)]
    content = {"labels": {"0": "background", "1": "box"}, "training": training}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def test_parts_of_the_subjects_do_not_overlap(labelled):
    names = ("all", "training", "held_back")
    parts = {part: {scan["subject"] for scan in labelled_scans(labelled, None, part)} for part in names}
    assert len(parts["all"]) == 10
    assert parts["training"] == parts["all"] - parts["held_back"]
    assert parts["held_back"] == {s["subject"] for s in split_subjects(labelled_scans(labelled, None, "all"), 0.2)[1]}
    last = {"imagesTr/s8.nii.gz", "imagesTr/s9.nii.gz"} - parts["held_back"]
    if len(last) == 2:
        assert {scan["subject"] for scan in labelled_scans(labelled, None, "choosing")} == last
    else:
        with pytest.raises(InputError, match="two are needed"):
            labelled_scans(labelled, None, "choosing")


def test_scans_without_labels_are_parted_with_the_others(labelled, tmp_path):
    """A training parts all of a folder's scans: which it holds back must not depend on which have labels."""
    shutil.copytree(labelled, tmp_path, dirs_exist_ok=True)
    content = json.loads((tmp_path / "dataset.json").read_text())
    whole = {scan["subject"] for scan in split_subjects(labelled_scans(labelled, None, "all"), 0.2)[1]}
    drawn = sorted(whole) + [name for name in ("imagesTr/s0.nii.gz", "imagesTr/s5.nii.gz") if name not in whole]
    for entry in content["training"]:
        if entry["image"] not in drawn:
            del entry["label"]
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    assert {scan["subject"] for scan in labelled_scans(tmp_path, None, "held_back")} == whole
    assert {scan["subject"] for scan in labelled_scans(tmp_path, None, "all")} == set(drawn)


def test_scans_that_the_model_was_trained_on_are_not_held_back(labelled, tmp_path, capsys):
    """As by a forgotten subject_key; of all scans it is said how many they are."""
    scans = labelled_scans(labelled, None, "all")
    (tmp_path / "settings.json").write_text(json.dumps({"trained_on": [fingerprint(scans[2]["image"])]}))
    model = str(tmp_path / "model.pt")
    with pytest.raises(InputError, match=rf"trained on 1 of the {len(scans)} .* as {scans[2]['image']}: pass"):
        count_seen(scans, "held_back", model)
    assert count_seen(scans, "all", model) == 1
    assert f"trained on 1 of the {len(scans)} scans, without labels: --subjects held_back" in capsys.readouterr().out
    assert count_seen(scans, "choosing", model) == 1
    assert count_seen(scans, "held_back", None) == 0
    about = {"data": "heads", "scans": {"all": 9, "trained_on": 1}}
    assert title_of(about, [{"method": "ours"}]) == "heads: 1 matches, 1 of 9 scans were trained on, without labels"


def test_pairs_are_of_two_subjects_and_none_comes_twice(labelled):
    scans = labelled_scans(labelled, None, "all")
    pairs = list_pairs_of(scans, 1000, 0)
    assert len(pairs) == len(set(pairs)) == 45
    assert list_pairs_of(scans, 6, 0) == list_pairs_of(scans, 6, 0)
    assert all(scans[first]["subject"] != scans[second]["subject"] for first, second in pairs)


SMALL = {"pixdim": "[2,2,2]", "spatial_size": "[16,16,16]", "features": "[4,8,16]", "load_pretrain": "False"}


def test_a_whole_run_says_what_is_left_out(labelled, tmp_path, capsys):
    """An untrained network; greedy and the others are not in the environment of the tests."""
    given = [part for name, value in SMALL.items() for part in (f"--{name}", value)]
    command = ["--data", str(labelled), "--out", str(tmp_path), "--refine", "3", *given]
    compare.main([*command, "--pairs", "1"])
    printed = capsys.readouterr().out
    for name in ("greedy_affine", "greedy", "greedy_weighted", "ants", "convexadam_mind", "convexadam_ours"):
        assert f"left out: {name}, which needs {PACKAGES[name.split('_')[0]]}" in printed
    first = (tmp_path / "comparison.csv").read_text()
    compare.main([*command, "--pairs", "2"])  # goes on
    assert (tmp_path / "comparison.csv").read_text().startswith(first)
    there = ["before", "ours_affine", "ours", "ours_refined"]
    with (tmp_path / "comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == [name for name in there for _ in "ab"] * 2
    assert (rows[0]["fixed"], rows[0]["moving"]) == (rows[1]["moving"], rows[1]["fixed"])
    before = [float(row["dice"]) for row in rows if row["method"] == "before"]
    assert before[0] == before[1]
    assert 0.2 < before[0] < 1
    assert all(0 <= float(row["dice"]) <= 1 and float(row["failed"]) == 0 for row in rows)
    found = json.loads((tmp_path / "comparison.json").read_text())
    assert list(found["methods"]) == there
    assert found["options"]["pixdim"] == [2, 2, 2]
    for name in there:
        assert f"| {name} | {found['methods'][name]['dice']:.3f} |" in (tmp_path / "comparison.md").read_text()
    assert (tmp_path / "comparison.png").stat().st_size > 1000
    with pytest.raises(InputError, match="of another comparison"):
        compare.main([*command, "--seed", "1"])
    (tmp_path / "comparison.json").write_text(json.dumps({**found, "configuration": "of another inference.json"}))
    with pytest.raises(InputError, match="of another comparison"):
        compare.main([*command, "--pairs", "3"])


def test_what_one_map_of_a_pair_lacks_is_not_scored(labelled, tmp_path, capsys):
    """A second structure in half of the maps: half of a pair's Dice where it is taken for absent."""
    folder = tmp_path / "data"
    shutil.copytree(labelled, folder)
    for number in range(0, 10, 2):
        path = folder / "labelsTr" / f"s{number}.nii.gz"
        label = np.asarray(nib.load(path).dataobj).copy()
        label[0, :2, :2] = 2
        path.unlink()
        write_nifti(path, label, np.diag([2.0, 2.0, 2.0, 1.0]))
    described = json.loads((folder / "dataset.json").read_text())
    described["labels"]["2"] = "corner"
    (folder / "dataset.json").write_text(json.dumps(described))
    given = [part for name, value in SMALL.items() for part in (f"--{name}", value)]
    given += ["--data", str(folder), "--pairs", "10", "--methods", "before"]
    compare.main([*given, "--out", str(tmp_path / "whole")])
    assert "of 10, corner in 5; what a map does not show counts as not there" in capsys.readouterr().out
    compare.main([*given, "--out", str(tmp_path / "partial"), "--partial_labels", "True"])
    assert "corner in 5" not in capsys.readouterr().out
    dice = []
    for kind in ("whole", "partial"):
        found = json.loads((tmp_path / kind / "comparison.json").read_text())
        dice.append([row["dice"] for row in found["matches"]])
        odd = [int(row["fixed"][1]) % 2 + int(row["moving"][1]) % 2 for row in found["matches"]]
    assert 1 in odd
    for mixed, whole, partial in zip(odd, *dice, strict=True):
        assert whole == pytest.approx(partial / 2 if mixed == 1 else partial, abs=1e-6)


def test_the_refinement_is_left_out_without_steps(labelled, tmp_path, capsys):
    given = [part for name, value in SMALL.items() for part in (f"--{name}", value)]
    command = ["--data", str(labelled), "--out", str(tmp_path), "--pairs", "1", "--refine", "0", *given]
    compare.main([*command, "--methods", "before", "ours", "ours_refined"])
    assert "left out: ours_refined, which needs steps: --refine 20" in capsys.readouterr().out
    assert list(json.loads((tmp_path / "comparison.json").read_text())["methods"]) == ["before", "ours"]


def test_all_methods_are_the_default_with_twenty_steps():
    given, _ = compare.parse(["--data", "x", "--out", "y"])
    assert given.refine == 20
    assert given.methods == list(DEFAULT)
    assert DEFAULT[:4] == ("before", "ours_affine", "ours", "ours_refined")


def test_each_target_has_atlases_of_its_own():
    scans = [{"subject": f"{number // 2}"} for number in range(24)]
    targets = list_targets(scans, 12, 3, seed=0)
    assert targets == list_targets(scans, 12, 3, seed=0)
    assert targets != list_targets(scans, 12, 3, seed=1)
    assert len({scans[target]["subject"] for target, _ in targets}) == 12
    for target, atlases in targets:
        assert len({scans[index]["subject"] for index in (target, *atlases)}) == 4
    assert len({frozenset(atlases) for _, atlases in targets}) > 6
    assert {index for _, atlases in targets for index in atlases} == {target for target, _ in targets}
    assert [len(atlases) for _, atlases in list_targets(scans, 2, 100, seed=0)] == [11, 11]


def test_atlases_vote_together(labelled, tmp_path):
    scans = labelled_scans(labelled, None, "all")
    ((target, atlases),) = list_targets(scans, 1, 3, seed=0)
    assert len({scans[index]["subject"] for index in (target, *atlases)}) == 4
    given = [part for name, value in SMALL.items() for part in (f"--{name}", value)]
    given += ["--atlases", "1", "3", "--pairs", "1", "--methods", "before", "ours"]
    compare.main(["--data", str(labelled), "--out", str(tmp_path), *given])
    found = json.loads((tmp_path / "comparison.json").read_text())
    assert [row["method"] for row in found["matches"]] == [
        f"{name}, {count}" for name in ("before", "ours") for count in ("1 atlas", "3 atlases")
    ]
    assert {row["fixed"] for row in found["matches"]} == {scans[target]["image"].rsplit("/", 1)[1]}
    one, three = (row for row in found["matches"] if row["method"].startswith("ours"))
    assert min(one["cpu_seconds"], three["cpu_seconds"]) > 0
    assert all(0 < row["dice"] <= 1 for row in found["matches"])
    scan_files = [read_scan_of(scans[index], [[1]]) for index in (target, *atlases)]
    boxes = torch.stack([scan.label[0] for scan in scan_files])
    majority = (boxes[1:].sum(dim=0) > 1).float()  # the scans lie alike, before they are matched
    expected = 2 * (majority * boxes[0]).sum() / (majority.sum() + boxes[0].sum())
    assert found["matches"][1]["dice"] == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--methods", "elastix"], "there is no method 'elastix'"),
        (["--pixdimm", "[2,2,2]"], "--pixdimm is no id of"),
        (["--pixdim"], "has no value"),
    ],
)
def test_mistakes_are_named(labelled, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        compare.main(["--data", str(labelled), "--out", str(tmp_path), *options])
