# SPDX-License-Identifier: Apache-2.0
"""The table of matches: what each is trusted for, and which to look at; a pair matched again has one row."""

from __future__ import annotations

import csv

import pytest
import torch
from monai.data import MetaTensor
from scripts.matching import WriteMatch
from scripts.matching.match_table import add_row, look_at, measure, outside

TRUSTED = {"agreement": [0.65, 1.0], "inliers": [0.8, 1.0]}
EDGES = torch.tensor([1.0, 2.0, 4.0])


def batch(inliers=None, back=None):
    image = torch.rand(1, 1, 12, 12, 12, generator=torch.Generator().manual_seed(0))
    pred = {"warped": image, "displacement": torch.zeros(1, 3, 12, 12, 12), "affine": torch.eye(3, 4)[None]}
    if inliers is not None:
        pred |= {
            "agreement": torch.tensor([0.8]),
            "inliers": torch.tensor([inliers]),
            "conditioning": torch.tensor([0.5]),
        }
    if back is not None:
        pred["backward_affine"] = torch.eye(3, 4)[None].clone()
        pred["backward_affine"][0, :, 3] = torch.tensor(back)
    affine = torch.diag(torch.cat([EDGES, torch.ones(1)]))[None]
    return {"image": MetaTensor(image, affine=affine), "pred": pred}


@pytest.mark.parametrize(("inliers", "look"), [(0.97, "no"), (0.7, "yes"), (float("nan"), "yes")])
def test_few_inliers_are_pointed_out(inliers, look):
    row = measure(batch(inliers), TRUSTED)
    assert row["look_at"] == look
    assert float(row["inliers"]) == pytest.approx(inliers, nan_ok=True)
    assert float(row["ncc"]) == pytest.approx(1, abs=1e-3)


def test_without_a_confidence_nothing_is_claimed():
    assert measure(batch(), TRUSTED)["look_at"] == ""
    assert measure(batch(0.97))["look_at"] == ""


@pytest.mark.parametrize(("back", "look"), [([0.0, 1.0, 1.0], "no"), ([0.0, 0.0, 2.0], "yes")])
def test_a_map_that_does_not_lead_back_is_pointed_out(back, look):
    row = measure(batch(0.97, back), TRUSTED | {"inverse_consistency_voxels": [0.0, 1.5]})
    assert float(row["inverse_consistency_mm"]) == pytest.approx(float((torch.tensor(back) * EDGES).norm()), abs=1e-3)
    assert row["look_at"] == look


def test_nothing_matched_is_not_said_to_lead_back():
    """Both maps are the identity then, 0 mm apart."""
    row = measure(batch(0.0, [0.0, 0.0, 0.0]), TRUSTED | {"inverse_consistency_voxels": [0.0, 1.5]})
    assert "inverse_consistency_mm" not in row
    assert "inverse_consistency_voxels" not in row
    assert row["look_at"] == "yes"
    assert row["doubts"] == "inliers 0, trusted from 0.8"


def test_a_discarded_map_is_pointed_out():
    """With its own numbers, whatever the bounds are."""
    data = batch(0.97, [0.0, 0.0, 0.0])
    data["pred"] |= {"matched_affine": torch.eye(3, 4)[None], "shifted": torch.tensor([False])}
    assert measure(data, TRUSTED)["look_at"] == "no"
    matched = torch.eye(3, 4)[None] + torch.tensor([0.0, 0.0, 0.0, 2.0])
    data["pred"] |= {"matched_affine": matched, "shifted": torch.tensor([True])}
    row = measure(data, TRUSTED)
    assert row["look_at"] == "yes"
    assert row["doubts"] == "no global match: the scans are laid upon each other by a shift alone"
    assert float(row["inverse_consistency_voxels"]) == pytest.approx(2 * 3**0.5, abs=1e-3)


@pytest.mark.parametrize(("margin", "look"), [(0.01, "no"), (-0.01, "yes")])
def test_a_match_that_is_more_alike_mirrored_is_pointed_out(margin, look):
    data = batch(0.97)
    data["pred"]["mirror_margin"] = torch.tensor([margin])
    row = measure(data, TRUSTED | {"mirror_margin": [0.0, 1.0]})
    assert float(row["mirror_margin"]) == pytest.approx(margin, abs=1e-4)
    assert row["look_at"] == look


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"agreement": 0.65, "inliers": 1.0}, ""),
        ({"agreement": 0.41, "inliers": 0.9}, "agreement 0.41, trusted from 0.65"),
        (
            {"agreement": 0.41, "inliers": 0.12345},
            "agreement 0.41, trusted from 0.65; inliers 0.1235, trusted from 0.8",
        ),
        ({"agreement": float("nan")}, "agreement nan, trusted from 0.65 to 1"),
        ({"inverse_consistency_voxels": 2.5}, "inverse consistency voxels 2.5, trusted up to 1.5"),
    ],
)
def test_the_number_outside_its_bound_is_told(found, said):
    trusted = TRUSTED | {"inverse_consistency_voxels": [0.0, 1.5]}
    assert outside(found, trusted) == said
    assert look_at(found, trusted) == ("yes" if said else "no")


def test_a_doubtful_match_is_named_on_the_screen(tmp_path, capsys):
    """One line for it, none for the other: only the table said so."""
    for name, inliers in (("good", 0.95), ("bad", 0.5)):
        data = batch(inliers) | {"result": [f"{name}_to_fixed"]}
        data["pred"]["local_displacement"] = data["pred"]["displacement"]
        data["image"].meta["filename_or_obj"] = ["scans/fixed.nii.gz"]
        data["moving"] = MetaTensor(data["image"].as_tensor().clone(), affine=data["image"].affine)
        data["moving"].meta["filename_or_obj"] = [f"scans/{name}.nii.gz"]
        data |= {f"original_{key}": data[key] for key in ("image", "moving")}
        WriteMatch(str(tmp_path), ["affine"], TRUSTED)(data)
    line = "look at scans/bad.nii.gz matched to scans/fixed.nii.gz: inliers 0.5, trusted from 0.8\n"
    assert capsys.readouterr().out == line


def test_a_pair_matched_again_has_one_row(tmp_path):
    for result, inliers in (("a", 0.95), ("b", 0.5), ("a", 0.2)):
        add_row(tmp_path, result, measure(batch(inliers), TRUSTED))
    with (tmp_path / "matches.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["result"], row["look_at"]) for row in rows] == [("b", "yes"), ("a", "yes")]
