# SPDX-License-Identifier: Apache-2.0

"""What had to be decided about scans is told in a line a kind, and stands in the run's table."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from geometries import grid, sheared, write_header
from scripts.data import find_scans, write_scan_table
from scripts.errors import InputError
from support import write_nifti


def test_lines_and_table(tmp_path, anatomy, capsys):
    """One line for each kind, with the number of scans and one of them; in the table every scan."""
    volume = anatomy(0)
    place = grid(volume.shape)
    write_nifti(tmp_path / "scans" / "a.nii", volume)
    for name in ("b", "c"):
        write_header(tmp_path / "scans" / f"{name}.nii", volume, place, codes=(0, 0))
    write_header(tmp_path / "scans" / "d.nii", volume, sheared(10) @ place, codes=(1, 0), pixdim=[1, 1, 1.0154])
    scans = find_scans(str(tmp_path / "scans"))
    lines = [line for line in capsys.readouterr().out.splitlines() if "scans, as" in line]
    assert [line.split(", which")[0] for line in lines] == [
        f"no orientation: 2 of 4 scans, as {tmp_path}/scans/b.nii",
        f"shear: 1 of 4 scans, as {tmp_path}/scans/d.nii",
    ]
    write_scan_table(str(tmp_path / "run"), scans)
    with (tmp_path / "run" / "scans.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["scan"][-5:] for row in rows] == ["a.nii", "b.nii", "c.nii", "d.nii"]
    assert rows[0]["decided"] == ""
    assert rows[0]["voxels"] == "24x24x24"
    assert rows[1]["decided"].startswith("no orientation: does not say how it lies")
    assert "10.0 degrees" in rows[3]["decided"]
    assert np.prod([float(value) for value in rows[3]["voxel_size_mm"].split("x")]) > 1


def written(folder, volume, names):
    for name in names:
        write_nifti(folder / f"{name}.nii", volume)
    return [{"image": str(folder / f"{name}.nii")} for name in names]


def rows_of(folder):
    with (folder / "scans.csv").open(encoding="utf-8", newline="") as file:
        return [(row["scan"][-5:], row["part"]) for row in csv.DictReader(file)]


def test_parts_of_a_split(tmp_path, anatomy):
    """Few subjects are measured on what is trained on: one line, which says so."""
    a, b = written(tmp_path, anatomy(0), "ab")
    write_scan_table(str(tmp_path), {"train": [a, b], "validation": [b]})
    assert rows_of(tmp_path) == [("a.nii", "train"), ("b.nii", "train, validation")]


def test_scans_of_a_run_before(tmp_path, anatomy, capsys):
    """Results that stand beside each other keep their lines; those of all scans in one file are not overwritten."""
    a, b, c = written(tmp_path, anatomy(0), "abc")
    write_scan_table(str(tmp_path), [a, b], earlier="refuse")
    write_scan_table(str(tmp_path), [b, a], earlier="refuse")
    for others in ([a], [a, b, c]):
        with pytest.raises(InputError, match=r"(a|b|c)\.nii\): pass another --output_dir"):
            write_scan_table(str(tmp_path), others, earlier="refuse")
    assert [name for name, _ in rows_of(tmp_path)] == ["b.nii", "a.nii"]
    write_scan_table(str(tmp_path), [b, c], earlier="keep")
    assert [name for name, _ in rows_of(tmp_path)] == ["a.nii", "b.nii", "c.nii"]
    assert not capsys.readouterr().out
    write_scan_table(str(tmp_path), [c])
    assert [name for name, _ in rows_of(tmp_path)] == ["c.nii"]
    assert capsys.readouterr().out.startswith("note: 2 scans that this run had before are not among those of now, as ")
