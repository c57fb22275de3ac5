# SPDX-License-Identifier: Apache-2.0
"""Landmarks: read in every format and space, refused where the space is not known, carried both ways, compared."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scripts.errors import InputError
from scripts.matching import carry_points, invert, list_pairs, read_points
from scripts.spatial import WorldMatch
from support import write_nifti

PLACES = np.array([[4.0, 5.0, 6.0], [10.0, 12.5, 8.0], [14.0, 7.0, 11.0]])
NAMES = ["apex", "base", "valve, left"]
MATRIX = np.array([[0.9, 0.1, 0.0, 1.0], [-0.1, 1.1, 0.05, -1.5], [0.0, 0.0, 1.0, 2.0], [0.0, 0.0, 0.0, 1.0]])
"""Fixed to moving, in millimetres."""


def slicer(space, places=PLACES, names=NAMES, **markup):
    signs = {"RAS": 1, "LPS": [-1, -1, 1]}.get(space, 1)
    points = [
        {"id": str(i), "label": name, "position": (place * signs).tolist(), "positionStatus": "defined", "locked": True}
        for i, (name, place) in enumerate(zip(names, places, strict=True))
    ]
    empty = {"id": "9", "label": "not placed", "position": [0, 0, 0], "positionStatus": "undefined"}
    described = {"type": "Fiducial", "coordinateSystem": space, "controlPoints": [*points, empty], **markup}
    return json.dumps({"@schema": "markups-schema-v1.0.3.json#", "markups": [described]})


def fcsv(system, signs):
    rows = [
        f'vtkMRMLMarkupsFiducialNode_{i},{x},{y},{z},0,0,0,1,1,1,0,"{name}",,'
        for i, (name, (x, y, z)) in enumerate(zip(NAMES, PLACES * signs, strict=True))
    ]
    head = ["# Markups fiducial file version = 4.11", f"# CoordinateSystem = {system}"]
    return "\n".join([*head, "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID", *rows]) + "\n"


def table(header, signs=1, names=NAMES):
    rows = [f'"{name}",{x},{y},{z}' for name, (x, y, z) in zip(names, PLACES * signs, strict=True)]
    return "\n".join([*([header] if header else []), *rows]) + "\n"


LPS = np.array([-1, -1, 1])
FORMATS = [
    ("a.mrk.json", slicer("RAS"), None),
    ("a.mrk.json", slicer("LPS"), None),
    ("a.fcsv", fcsv("RAS", 1), None),
    ("a.fcsv", fcsv("0", 1), None),
    ("a.fcsv", fcsv("LPS", LPS), None),
    ("a.fcsv", fcsv("1", LPS), None),
    ("a.csv", table("label,r,a,s"), None),
    ("a.csv", table("name,l,p,s", LPS), None),
    ("a.csv", table("label,x,y,z", LPS), "LPS"),
    ("a.csv", table(""), "RAS"),
    ("a.csv", "# CoordinateSystem = LPS\n" + table("label,x,y,z", LPS), None),
    ("a.csv", table("label;x;y;z").replace(",", ";").replace("valve;", "valve,"), "RAS"),
]


@pytest.mark.parametrize(("name", "content", "space"), FORMATS)
def test_formats_and_spaces_are_read_and_written_alike(tmp_path, name, content, space):
    path = tmp_path / name
    path.write_text(content)
    found = read_points(str(path), space)
    assert found.names == NAMES
    assert np.allclose(found.positions, PLACES)
    path.write_text(found.text(PLACES + [1, 2, 3]))
    again = read_points(str(path), space)
    assert again.names == NAMES
    assert np.allclose(again.positions, PLACES + [1, 2, 3])


def test_a_markups_file_keeps_what_is_not_a_position(tmp_path):
    path = tmp_path / "a.mrk.json"
    path.write_text(slicer("LPS", measurements=[{"name": "length", "value": 3}]))
    (markup,) = json.loads(read_points(str(path)).text(PLACES))["markups"]
    assert markup["coordinateSystem"] == "LPS"
    assert [point["label"] for point in markup["controlPoints"]] == [*NAMES, "not placed"]
    assert markup["controlPoints"][0]["locked"]
    assert markup["controlPoints"][0]["position"] == [-4, -5, 6]
    assert "measurements" not in markup  # they would be those of before


@pytest.mark.parametrize(
    ("name", "content", "space", "message"),
    [
        ("a.csv", table("label,x,y,z"), None, "pass --points_space"),
        ("a.csv", table(""), None, "pass --points_space"),
        ("a.csv", table("label,r,a,s"), "LPS", "it says that it is in RAS"),
        ("a.csv", table("label,r,a,s"), "lps", "points_space is 'RAS' or 'LPS'"),
        ("a.csv", "# CoordinateSystem = LPS\n" + table("label,r,a,s"), None, "its columns say RAS"),
        ("a.csv", table("label,i,j,k"), "RAS", "x, y, z .* are needed"),
        ("a.csv", "apex,1,2\n", "RAS", "three numbers"),
        ("a.csv", "label,x,y,z,x\napex,1,2,3,4\n", "RAS", "has a column of x, y, z twice: rename one"),
        ("a.csv", "apex,1,2,3\nvalve, left,4,5,6\n", "RAS", "row 2 .* has 5 entries for 4 columns"),
        ("a.csv", "label,x,y,z\napex,1,2,nan\n", "RAS", "landmark apex is not finite"),
        ("a.csv", "label,x,y,z\napex,1,2\n", "RAS", "landmark 1 has 3 columns"),
        ("a.csv", "label,x,y,z\n", "RAS", "holds no landmark"),
        ("a.csv", "", "RAS", "holds no landmark"),
        ("a.csv", "r,a,s,defined\n0,0,0,0\n", None, "holds no landmark"),
        ("a.csv", "#1,7,8,9\n", "RAS", "holds no landmark"),
        ("a.fcsv", fcsv("2", 1), None, "CoordinateSystem is 2"),
        ("a.fcsv", "\n".join(fcsv("LPS", 1).splitlines()[2:]), None, "pass --points_space"),
        ("a.mrk.json", slicer(None), None, "coordinateSystem is None"),
        ("a.mrk.json", slicer("LPS", type="Plane"), None, "more than its points"),
        ("a.mrk.json", slicer("LPS", coordinateUnits="m"), None, "not mm"),
        ("a.mrk.json", "{}", None, "has no 'markups'"),
        ("a.mrk.json", "{", None, "cannot be read as landmarks"),
        ("a.txt", "1,2,3", "RAS", "no file of landmarks"),
    ],
)
def test_what_is_not_known_is_refused(tmp_path, name, content, space, message):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        read_points(str(path), space)
    assert "\n" not in str(caught.value)


REMEDIES = {
    "decimal commas": ("x,y,z\n1,5,2,5,3,5\n", "write decimals with a point", "x,y,z\n1.5,2.5,3.5\n"),
    "and semicolons": (
        "x;y;z\n1,5;2,5;3,5\n",
        "'1,5' is no number; write decimals with a point",
        "x;y;z\n1.5;2.5;3.5\n",
    ),
    "Latin-1": (
        "label,x,y,z\nHöcker,1.5,2.5,3.5\n".encode("latin-1"),
        "save it as CSV in UTF-8",
        "Höcker,1.5,2.5,3.5\n",
    ),
    "no space said": ("x,y,z\n1.5,2.5,3.5\n", "pass --points_space RAS", None),
    "said twice": ("r,a,s\n1.5,2.5,3.5\n", "leave --points_space out", None),
    "none": ("x,y,z\n", "place some and save it again", "x,y,z\n1.5,2.5,3.5\n"),
    "not finite": ("x,y,z\n1.5,nan,3.5\n", "correct it there", "x,y,z\n1.5,2.5,3.5\n"),
    "numbers of columns and rows": (
        ",0,1,2\n0,1.5,2.5,3.5\n",
        "has numbers of columns, 0, 1, 2: write label,x,y,z there",
        "label,x,y,z\n0,1.5,2.5,3.5\n",
    ),
    "numbers of columns": ("0,1,2\n1.5,2.5,3.5\n", "0, 1, 2: write x,y,z there", "x,y,z\n1.5,2.5,3.5\n"),
    "names in a remark": (
        "# z,y,x\n3.5,2.5,1.5\n",
        "'# z,y,x' names the columns, but begins with #: write only their names there, without #",
        "z,y,x\n3.5,2.5,1.5\n",
    ),
    "names in a remark with others": (
        "# columns: z y x\n3.5,2.5,1.5\n",
        "write only their names there, without #",
        "z,y,x\n3.5,2.5,1.5\n",
    ),
    "a landmark with #": (
        "label,r,a,s\n#1,1.5,2.5,3.5\n",
        "'#1,1.5,2.5,3.5' begins with # below the first row: write it without #",
        "label,x,y,z\n1,1.5,2.5,3.5\n",
    ),
    "a remark below": (
        "sep=;\n# by hand\n1.5;2.5;3.5\n# checked\n",
        "'# checked' .* or above that row",
        "sep=;\n# by hand\n# checked\n1.5;2.5;3.5\n",
    ),
}
SPACE_GIVEN = {"no space said": (None, "RAS"), "said twice": ("LPS", None)}


def test_a_first_landmark_behind_a_sign_of_remarks_is_refused(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("#1,7,8,9\n2,1.5,2.5,3.5\n", encoding="utf-8")
    with pytest.raises(InputError, match="is a landmark, but begins with #: write it without #"):
        read_points(str(path), "RAS")
    path.write_text("1,7,8,9\n2,1.5,2.5,3.5\n", encoding="utf-8")
    assert read_points(str(path), "RAS").positions.tolist() == [[7, 8, 9], [1.5, 2.5, 3.5]]


@pytest.mark.parametrize("case", REMEDIES)
def test_what_is_advised_makes_landmarks_readable(tmp_path, case):
    content, message, mended = REMEDIES[case]
    before, after = SPACE_GIVEN.get(case, ("RAS", "RAS"))
    path = tmp_path / "a.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message):
        read_points(str(path), before)
    if mended is not None:
        path.write_text(mended, encoding="utf-8")
    assert read_points(str(path), after).positions.tolist() == [[1.5, 2.5, 3.5]]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_tables_of_spreadsheets(tmp_path, encoding):
    """Their encodings, and the empty rows that they leave; columns at the end that 3D Slicer does not name."""
    path = tmp_path / "a.csv"
    path.write_text("sep=;\nlabel;x;y;z\nHöcker;1;2;3\n;;;\n", encoding=encoding)
    found = read_points(str(path), "RAS")
    assert (found.names, found.positions.tolist()) == (["Höcker"], [[1, 2, 3]])
    (tmp_path / "a.fcsv").write_text(fcsv("RAS", 1).replace(",,\n", ",,,2,0\n"))
    assert np.allclose(read_points(str(tmp_path / "a.fcsv")).positions, PLACES)


def test_landmarks_of_a_table_that_are_not_placed_stay(tmp_path):
    """3D Slicer exports them at 0, 0, 0; before, they were carried with the others."""
    content = "label,l,p,s,defined,selected\nF-1,0,0,0,0,1\nF-2,-7,-8,9,1,1\n,,,,0,1\n,1,2,3,1,1\n"
    (tmp_path / "a.csv").write_text(content)
    found = read_points(str(tmp_path / "a.csv"))
    assert (found.names, found.positions.tolist()) == (["F-2", "4"], [[7, 8, 9], [-1, -2, 3]])
    rows = found.text(np.array([[1, 1, 1], [2, 2, 2]])).splitlines()
    assert rows[1:3] == ["F-1,0,0,0,0,1", "F-2,-1.0000,-1.0000,1.0000,1,1"]
    assert rows[3:] == [",,,,0,1", ",-2.0000,-2.0000,2.0000,1,1"]


def test_remarks_above_a_table_and_a_landmark_at_0_1_2(tmp_path):
    (tmp_path / "a.csv").write_text("# by hand, 2024\nsep=,\n# r,a,s in mm\nx,y,z\n0,1,2\n")
    found = read_points(str(tmp_path / "a.csv"), "RAS")
    assert found.positions.tolist() == [[0, 1, 2]]
    assert found.text(found.positions).startswith("# by hand, 2024\n# r,a,s in mm\nx,y,z\n0.0000")


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
