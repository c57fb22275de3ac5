# SPDX-License-Identifier: Apache-2.0
"""Files of landmarks: read in every format and space, refused where the space is not known, written alike."""

from __future__ import annotations

import json

import numpy as np
import pytest
from landmark_files import LPS, NAMES, PLACES, fcsv, slicer, table
from scripts.errors import InputError
from scripts.matching import read_points

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
