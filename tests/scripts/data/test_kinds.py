# SPDX-License-Identifier: Apache-2.0

"""Scans of several kinds are told and counted, and the option that the line names takes one of them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pydicom
import pytest
from scripts.data import find_scans
from scripts.errors import InputError
from support import write_dicom, write_nifti


@pytest.fixture
def advised(capsys):
    """Find scans, then again as the line advises; the number of scans of either, and the line."""

    def look(folder: Path) -> tuple[int, int, str]:
        scans = find_scans(str(folder), min_subjects=1)
        (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("kinds:")]
        kind = shlex.split(re.search(r"\((--kind .+) takes one\)", line)[1])[1]
        taken = find_scans(str(folder), min_subjects=1, kind=kind)
        assert "kinds:" not in capsys.readouterr().out
        return len(scans), len(taken), line

    return look


def test_contrasts_at_the_end_of_names(tmp_path, anatomy, advised):
    for n in range(3):
        write_nifti(tmp_path / f"p{n}" / f"p{n}_t1.nii", anatomy(n))
        if n:
            write_nifti(tmp_path / f"p{n}" / f"p{n}_flair.nii", anatomy(n))
    assert advised(tmp_path)[:2] == (5, 3)
    assert f"5 scans of 2 kinds are mixed: 3 t1, as {tmp_path / 'p0' / 'p0_t1.nii'}; 2 flair" in advised(tmp_path)[2]
    assert len(find_scans(str(tmp_path), kind="FLAIR")) == 2


def ct(anatomy, padding=None) -> np.ndarray:
    volume = np.where(anatomy(0) > 0, 40 + anatomy(0) / 10, -1000).astype(np.float32)
    if padding is not None:
        volume[:2] = padding
    return volume


@pytest.mark.parametrize("padding", [None, -3024, 32767])
def test_ct_and_mr_by_their_values(tmp_path, anatomy, advised, padding):
    for n in range(2):
        write_nifti(tmp_path / f"a{n}.nii", ct(anatomy, padding))
        write_nifti(tmp_path / f"b{n}.nii", anatomy(n) + 200)
    write_nifti(tmp_path / "c.nii", ct(anatomy, padding))
    assert advised(tmp_path)[:2] == (5, 3)
    assert "3 CT, as" in advised(tmp_path)[2]
    assert len(find_scans(str(tmp_path), kind="no CT")) == 2


def test_series_of_several_descriptions(tmp_path, anatomy, advised):
    for n, description in enumerate(("T1 axial", "T1 axial", "T2 axial FS")):
        write_dicom(tmp_path / f"p{n}", anatomy(n))
        for path in (tmp_path / f"p{n}").iterdir():
            item = pydicom.dcmread(path)
            item.SeriesDescription, item.Modality = description, "MR"
            item.save_as(path, enforce_file_format=True)
    assert advised(tmp_path)[:2] == (3, 2)
    assert "2 MR T1 axial, as" in advised(tmp_path)[2]
    assert len(find_scans(str(tmp_path), kind="axial")) == 3


def test_acquisitions_of_one_bids_suffix(tmp_path, anatomy, advised):
    for n in range(3):
        write_nifti(tmp_path / f"sub-{n}" / "anat" / f"sub-{n}_T1w.nii.gz", anatomy(n))
    write_nifti(tmp_path / "sub-0" / "anat" / "sub-0_ce-gd_T1w.nii.gz", anatomy(0))
    assert advised(tmp_path)[:2] == (4, 3)
    assert len(find_scans(str(tmp_path), kind="T1w ce-gd", min_subjects=1)) == 1


def test_one_kind_says_nothing(tmp_path, anatomy, capsys):
    for n in range(2):
        write_nifti(tmp_path / f"p{n}_T1.nii", anatomy(n))
    assert [scan["kind"] for scan in find_scans(str(tmp_path))] == ["t1", "t1"]
    assert "kinds" not in capsys.readouterr().out
    with pytest.raises(InputError, match="no scan of kind 'T2', but 2 t1: pass --kind with one of them"):
        find_scans(str(tmp_path), kind="T2")


@pytest.mark.parametrize("wrong", [10, 0.1])
def test_a_scan_of_quite_another_size_is_told(tmp_path, anatomy, capsys, wrong):
    """A voxel size that is ten times too large or small can be read, and nothing fails."""
    for n in range(3):
        write_nifti(tmp_path / f"p{n}.nii", anatomy(n), np.diag([*[wrong if n == 1 else 1.0] * 3, 1]))
    find_scans(str(tmp_path))
    told = capsys.readouterr().out
    assert f"sizes: 1 of 3 scans, as {tmp_path / 'p1.nii'}, which is {24 * wrong:.4g} mm long by its header" in told
    (tmp_path / "p1.nii").unlink()
    write_nifti(tmp_path / "p1.nii", anatomy(1))
    find_scans(str(tmp_path))
    assert "sizes:" not in capsys.readouterr().out
