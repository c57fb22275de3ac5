# SPDX-License-Identifier: Apache-2.0
"""Landmarks carried both ways, and compared."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from landmark_files import LPS, NAMES, PLACES, fcsv, slicer, table
from monai.data import MetaTensor
from scripts.errors import InputError
from scripts.matching import carry_points, invert, list_pairs, read_points
from scripts.spatial import WorldMatch
from support import write_nifti

MATRIX = np.array([[0.9, 0.1, 0.0, 1.0], [-0.1, 1.1, 0.05, -1.5], [0.0, 0.0, 1.0, 2.0], [0.0, 0.0, 0.0, 1.0]])
"""Fixed to moving, in millimetres."""


def bent(points):
    """A map that is no affine one, and has an inverse everywhere."""
    return points + torch.stack([0.8 * (points[1] / 3).sin(), 0.8 * (points[0] / 3).cos(), 0 * points[0]])


def test_the_inverse_of_a_bent_map():
    points = torch.from_numpy(PLACES.T.copy())
    found, residual = invert(bent, torch.eye(4), points)
    assert residual.max() < 1e-3
    assert torch.allclose(bent(found), points, atol=1e-3)
    assert (found - points).norm(dim=0).max() > 0.1


def test_a_point_that_no_point_is_mapped_to_keeps_its_residual():
    def squashed(points):
        return torch.cat([points[:2], points[2:] * 0])

    _, residual = invert(squashed, torch.eye(4), torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.float64))
    assert residual.tolist() == pytest.approx([3.0])


SIZE = (20, 18, 16)
FIXED = np.diag([1.0, 1.0, 1.0, 1.0])
MOVING = np.array([[0.0, -1.5, 0.0, 26.0], [1.2, 0.0, 0.0, -2.0], [0.0, 0.0, 1.5, 0.0], [0.0, 0.0, 0.0, 1.0]])


@pytest.fixture
def pair(tmp_path):
    """A batch of a pair whose map is the affine one above, with scans on disk, in different orientations."""
    data = {"result": ["m_to_f"]}
    for side, affine in (("image", FIXED), ("moving", MOVING)):
        path = tmp_path / f"{side}.nii.gz"
        write_nifti(path, np.zeros(SIZE, np.float32), affine)
        scan = MetaTensor(torch.zeros(1, 1, *SIZE), affine=torch.from_numpy(affine)[None])
        scan.meta["filename_or_obj"] = [str(path)]
        data[f"original_{side}"] = scan
    affine = np.linalg.inv(MOVING) @ MATRIX @ FIXED
    match = WorldMatch(
        torch.from_numpy(affine[:3]), torch.zeros(3, *SIZE), torch.from_numpy(FIXED), torch.from_numpy(MOVING)
    )
    return {"data": data, "match": match, "folder": tmp_path / "out" / "m_to_f"}


def moved(places):
    return places @ MATRIX[:3, :3].T + MATRIX[:3, 3]


@pytest.mark.parametrize("name", ["p.mrk.json", "p.fcsv", "p.csv"])
def test_both_directions_of_an_affine_match(tmp_path, pair, name):
    """Landmarks drawn where the map leads come back upon each other; one drawn 3 mm off has an error of 3 mm."""
    contents = {"p.mrk.json": slicer("LPS"), "p.fcsv": fcsv("LPS", LPS), "p.csv": table("label,x,y,z", LPS)}
    content, space = contents[name], "LPS"  # of files that do not say it
    own = tmp_path / name
    own.write_text(content)
    off = moved(PLACES) + [[0, 0, 0], [0, 0, 3], [0, 0, 0]]
    others = tmp_path / "others.mrk.json"
    others.write_text(slicer("RAS", off[::-1], NAMES[::-1]))  # matched by name
    pair["data"] |= {"fixed_points": [str(own)], "points": [str(others)], "points_space": [space]}
    pair["folder"].mkdir(parents=True)
    assert float(carry_points(**pair)["tre_mm"]) == pytest.approx(1.0, abs=1e-3)
    carried = read_points(str(pair["folder"] / f"fixed_points{name[1:]}"), space)
    assert np.allclose(carried.positions, moved(PLACES), atol=1e-3)
    back = read_points(str(pair["folder"] / "points.mrk.json"))
    assert np.allclose(back.positions[::-1][[0, 2]], PLACES[[0, 2]], atol=1e-3)
    with (tmp_path / "out" / "points.csv").open(newline="") as file:
        rows = {(row["of"], row["point"]): row for row in csv.DictReader(file)}
    assert len(rows) == 6
    assert float(rows["fixed", "base"]["error_mm"]) == pytest.approx(3, abs=1e-3)
    assert float(rows["moving", "apex"]["error_mm"]) == pytest.approx(0, abs=1e-3)
    assert all(float(row["residual_mm"]) < 1e-3 and row["inside"] == "yes" for row in rows.values())


def test_landmarks_of_the_other_space_are_refused(tmp_path, pair):
    path = tmp_path / "p.csv"
    path.write_text(table("label,x,y,z"))
    pair["data"] |= {"fixed_points": [str(path)], "points_space": ["LPS"]}
    with pytest.raises(InputError, match="none of the 3 landmarks"):
        carry_points(**pair)


def test_landmarks_go_with_the_pairs_they_are_of(tmp_path):
    for name in "abc":
        write_nifti(tmp_path / f"{name}.nii.gz", np.random.default_rng(0).random(SIZE).astype(np.float32))
        (tmp_path / f"{name}.csv").write_text(table("label,x,y,z"))
    scans, points = ([str(tmp_path / f"{name}.{end}") for name in "abc"] for end in ("nii.gz", "csv"))
    given = {"fixed": scans[0], "moving": scans[1:], "points_space": "RAS"}
    listed = list_pairs(**given, points=points[1:], fixed_points=points[0])
    assert [(pair["points"], pair["fixed_points"], pair["points_space"]) for pair in listed] == [
        (points[1], points[0], "RAS"),
        (points[2], points[0], "RAS"),
    ]
    with pytest.raises(InputError, match="2 scans have 1 files of landmarks"):
        list_pairs(**given, points=points[1])
    with pytest.raises(InputError, match="pass --points_space"):
        list_pairs(**given | {"points_space": None}, points=points[1:])
    with pytest.raises(InputError, match="landmarks go with --fixed and --moving"):
        list_pairs(dataset_dir=str(tmp_path), fixed_points=points[0], points_space="RAS")
    (tmp_path / "a.csv").rename(tmp_path / "points.csv")
    with pytest.raises(InputError, match="would be overwritten"):
        list_pairs(**given, fixed_points=str(tmp_path / "points.csv"), output_dir=str(tmp_path))
    described = [{"image": "a.nii.gz", "moving": "b.nii.gz", "points": "b.csv"}]
    (tmp_path / "pairs.json").write_text(json.dumps(described))
    (pair,) = list_pairs(pairs=str(tmp_path / "pairs.json"), points_space="RAS")
    assert pair["points"] == str(tmp_path / "b.csv")
