# SPDX-License-Identifier: Apache-2.0

"""What a match leaves of a known motion, whether failures are told, and the pictures: on maps that are known, whole."""

from __future__ import annotations

import json

import compare
import doubtful
import numpy as np
import pictures
import pytest
import robustness
import torch
from comparison.bundle_match import BUNDLE, BundleMatch
from comparison.known_maps import known_map, moved, what_is_left
from comparison.matched_sets import PLAN
from comparison.scans import labelled_scans, read_scan_of
from PIL import Image
from scripts.data import read_json
from scripts.errors import InputError
from scripts.spatial import affine_about_centre, affine_displacement, compose_affine, inverse_affine, warp
from support import write_nifti

SIZE, SPACING = [20, 24, 16], [2.0, 2.0, 3.0]
OPTIONS = {"pixdim": [2, 2, 2], "spatial_size": [16, 16, 16], "features": [4, 8, 16], "load_pretrain": False}


@pytest.fixture(scope="module")
def labelled(anatomy, tmp_path_factory):
    """Sets of six people each under the names of a plan."""
    folder = tmp_path_factory.mktemp("sets")
    for name in ("one", "other"):
        entries = []
        for subject in range(6):
            scan = anatomy(subject)
            entry = {"image": f"imagesTr/{name}_{subject}.nii.gz", "label": f"labelsTr/{name}_{subject}.nii.gz"}
            write_nifti(folder / name / entry["image"], scan)
            write_nifti(folder / name / entry["label"], (scan > 100).astype(np.uint8))
            entries.append(entry)
        labels = {"0": "background", "1": "bright"}
        (folder / name / "dataset.json").write_text(json.dumps({"labels": labels, "training": entries}))
    return folder


@pytest.fixture(scope="module")
def plan(labelled, tmp_path_factory):
    content = read_json(PLAN)
    place = {"code": 1, "name": "bright", "plane": "axial"}
    sets = {
        name: {"folder": name, "subject_key": None, "place": place, "options": OPTIONS} for name in ("one", "other")
    }
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    path.write_text(json.dumps({**content, "sets": sets, "moved": ["one"]}))
    return path


@pytest.mark.parametrize(
    ("motion", "missed", "measure"),
    [
        ({"degrees": [15, 0, 0]}, {"degrees": [4, 0, 0]}, ("degrees", 4.0)),
        ({"shift": [0, 0.2, 0]}, {"shift": [0, 0.05, 0]}, ("shift", 5.0)),
        ({"scale": 1.2}, {"scale": 1.1}, ("scale", 10.0)),
    ],
)
def test_what_is_left_of_a_motion(motion, missed, measure):
    """Nothing of one that was found, all of it where another one was found."""
    seen = torch.ones(SIZE)
    plain = affine_about_centre(torch.eye(3).double()[None], torch.tensor([[3.0, -2.0, 1.0]]).double(), SIZE, SPACING)
    known = known_map(SIZE, SPACING, **motion)
    true = compose_affine(inverse_affine(known[None, :3]), plain)
    found = what_is_left(plain[0], true[0], known, SPACING, seen)
    assert max(found.values()) == pytest.approx(0, abs=1e-4)
    wrong = compose_affine(inverse_affine(known_map(SIZE, SPACING, **missed)[None, :3]), true)
    name, expected = measure
    assert what_is_left(plain[0], wrong[0], known, SPACING, seen)[name] == pytest.approx(expected, rel=0.1)


def test_the_moved_scan_is_the_scan_seen_through_the_map(labelled):
    scans = [read_scan_of(scan, [[1]]) for scan in labelled_scans(labelled / "one", None, "all")[:2]]
    pair = BundleMatch([str(BUNDLE / "configs" / "inference.json")], OPTIONS).prepare(*scans)
    known = known_map(OPTIONS["spatial_size"], [2.0] * 3, degrees=[0, 0, 15], shift=[0.1, 0, 0])
    before, after = (torch.as_tensor(one.batch["moving"]) for one in (pair, moved(pair, known)))
    expected = warp(before, affine_displacement(known[None, :3].float(), before.shape[2:]))
    inner = (..., *[slice(4, -4)] * 3)
    assert (after - expected)[inner].abs().mean() < 0.3 * (after - before)[inner].abs().mean()


def test_robustness_goes_on_and_counts(labelled, plan, tmp_path):
    command = ["--data", str(labelled), "--out", str(tmp_path), "--plan", str(plan), "--subjects", "all"]
    robustness.main([*command, "--pairs", "1"])
    first = (tmp_path / "robustness.csv").read_text()
    robustness.main([*command, "--pairs", "2"])
    written = (tmp_path / "robustness.csv").read_text()
    assert written.startswith(first)
    kinds = len(read_json(PLAN)["known"])
    assert written.count("\n") == 1 + 2 * kinds
    lines = (tmp_path / "robustness.md").read_text().splitlines()
    assert len(lines) == 2 + kinds
    assert all(line.split("|")[3].strip() == "2" for line in lines[2:])


def test_failures_are_counted_by_kind(labelled, plan, tmp_path, capsys):
    command = ["--data", str(labelled), "--out", str(tmp_path), "--plan", str(plan), "--subjects", "all"]
    doubtful.main([*command, "--pairs", "2"])
    rows = (tmp_path / "doubtful.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * 2 * 6
    table = (tmp_path / "doubtful.md").read_text()
    for kind in ("right", "the mirror image", "upside down", "no overlap", "noise", "another part of the body"):
        assert f"| {kind} |" in table
    assert "2 of 2" in table
    assert "| noise |" in capsys.readouterr().out


def test_areas_under_the_curve():
    """1 where a number tells all right pairs, 0 where it does so the wrong way round; less there and back is better."""
    rows = [
        {"set": "one", "kind": kind, "agreement": str(value), "inverse_consistency_mm": str(value)}
        for kind, value in (("right", 0.9), ("right", 0.8), ("noise", 0.3), ("noise", 0.2))
    ]
    assert doubtful.area(rows, "noise", "agreement") == 1
    assert doubtful.area(rows, "noise", "inverse_consistency_mm") == 0


def test_pictures_are_drawn(labelled, plan, tmp_path):
    """Of places, of a comparison's pairs, and its numbers again, from its folder and from its table."""
    folder = tmp_path / "comparison"
    given = [part for name, value in OPTIONS.items() for part in (f"--{name}", str(value))]
    scans = ["--data", str(labelled / "one")]
    compare.main([*scans, "--out", str(folder), "--pairs", "2", "--methods", "before", "ours", *given])
    compared = ["--comparison", str(folder / "comparison.csv")]
    for what, arguments in {
        "places": ["--data", str(labelled), "--plan", str(plan), "--subjects", "all"],
        "pairs": [*scans, "--comparison", str(folder)],
        "dice": compared,
    }.items():
        path = tmp_path / f"{what}.png"
        pictures.main([what, "--out", str(path), *arguments])
        assert len(np.unique(np.asarray(Image.open(path).convert("L")))) > 50, what
    for arguments, message in (
        (["pairs"], "--comparison"),
        (["places"], "--data"),
        (["pairs", *scans, *compared, "--method", "ants"], "no match by 'ants'"),
    ):
        with pytest.raises(InputError, match=message):
            pictures.main([*arguments, "--out", str(tmp_path / "none.png")])
