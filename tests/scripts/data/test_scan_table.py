# SPDX-License-Identifier: Apache-2.0

"""What had to be decided about scans is told in a line a kind, and stands in the run's table."""

from __future__ import annotations

import csv

import numpy as np
from geometries import grid, sheared, write_header
from scripts.data import find_scans, write_scan_table
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
