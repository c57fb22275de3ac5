# SPDX-License-Identifier: Apache-2.0

"""Copies of one scan under several names are one subject, everywhere."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from geometries import write_series
from scripts.data import PairDataset, find_cohorts, find_scans, fingerprint, split_subjects
from scripts.data.scan_checks import voxel_digest
from scripts.errors import InputError
from scripts.finetuning import classified_cases
from support import write_nifti

SIZE = (14, 12, 10)


def values(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1000, SIZE).astype(np.int16)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six scans; the first as it is, uncompressed, and in another place: three names."""
    for number in range(6):
        write_nifti(tmp_path / "scans" / f"s{number}.nii.gz", values(number))
    (tmp_path / "scans" / "x.nii").write_bytes(gzip.decompress((tmp_path / "scans" / "s0.nii.gz").read_bytes()))
    write_nifti(tmp_path / "scans" / "y.nii.gz", values(0), np.diag([2, 2, 2, 1]))
    return tmp_path / "scans"


def test_copies_are_one_subject_and_said(folder, tmp_path, capsys):
    """Twice: the second time what was found is remembered."""
    for _ in range(2):
        scans = find_scans(str(folder), cache_dir=str(tmp_path / "cache"))
        subjects = {Path(scan["image"]).name: scan["subject"] for scan in scans}
        assert len(scans) == 8
        assert {subjects[name] for name in ("s0.nii.gz", "x.nii", "y.nii.gz")} == {"s0.nii.gz"}
        assert len(set(subjects.values())) == 6
        told = capsys.readouterr().out
        assert f"copies: 2 of 8 scans have the voxels of another one, as {folder / 'x.nii'} those of" in told


def test_copies_of_another_type_or_scale(folder, tmp_path):
    """Also beside what an earlier version, whose digests told types apart, remembered of a scan."""
    for name, dtype, slope in (("f.nii.gz", np.float32, None), ("h.nii.gz", np.int16, 0.5)):
        stored = values(5).astype(np.float32) / (slope or 1)
        image = nib.Nifti1Image(stored.astype(dtype), np.eye(4))
        image.header.set_slope_inter(slope, slope and 0)
        nib.save(image, folder / name)
    record = tmp_path / "cache" / "checked_scans.json"
    find_scans(str(folder), cache_dir=str(record.parent))
    earlier = json.loads(record.read_text())
    for entry in earlier.values():
        entry["stamp"].pop(0)
        entry["digest"] = "0"
    record.write_text(json.dumps(earlier))
    subjects = {
        Path(scan["image"]).name: scan["subject"] for scan in find_scans(str(folder), cache_dir=str(record.parent))
    }
    assert {subjects[name] for name in ("f.nii.gz", "h.nii.gz", "s5.nii.gz")} == {"f.nii.gz"}
    assert len(set(subjects.values())) == 6


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float64, ">f4", ">i2"])
def test_a_digest_is_of_values_and_shape(dtype):
    volume = np.arange(24).reshape(2, 3, 4)
    assert voxel_digest(volume.astype(dtype)) == voxel_digest(volume.astype(np.float32))
    assert voxel_digest(np.where(volume, volume, -0.0)) == voxel_digest(volume)
    assert len({voxel_digest(volume.reshape(shape)) for shape in ((2, 3, 4), (4, 3, 2), (24,))}) == 3
    assert voxel_digest(volume) != voxel_digest(volume + 1)


def test_no_pair_of_copies_and_no_copy_held_back(folder):
    scans = find_scans(str(folder))
    copies = {str(folder / name) for name in ("s0.nii.gz", "x.nii", "y.nii.gz")}
    for seed in range(5):
        training, held = split_subjects(scans, 0.3, seed)
        assert copies <= {scan["image"] for scan in training} or copies <= {scan["image"] for scan in held}
    pairs = PairDataset(scans, length=200)
    drawn = ({scans[index]["image"] for index in pairs.indices(draw)[:2]} for draw in range(200))
    assert not any(pair <= copies for pair in drawn)


def test_all_scans_of_subjects_that_share_a_copy_are_one_subject(tmp_path, capsys):
    for subject, seeds in {"a": (0, 1), "b": (1, 2), "c": (2, 3), "d": (4, 5)}.items():
        for number, seed in enumerate(seeds):
            write_nifti(tmp_path / subject / f"{number}.nii.gz", values(seed))
    scans = find_scans(str(tmp_path), subject_key="^[a-d]")
    assert {scan["image"].split("/")[-2]: scan["subject"] for scan in scans} == dict.fromkeys("abc", "a") | {"d": "d"}
    capsys.readouterr()
    scans = find_scans(str(tmp_path), subject_key="^[a-d]", min_subjects=3)
    assert {scan["subject"] for scan in scans} == set("abcd"), "too few would be left"
    assert "each keeps its subject, or less than 3 are left" in capsys.readouterr().out


def test_dicom_series_and_volumes(tmp_path):
    volume = values(0)
    write_series(tmp_path / "cd", volume)
    write_nifti(tmp_path / "a.nii.gz", volume)
    write_nifti(tmp_path / "b.nii.gz", values(1))
    assert len({scan["subject"] for scan in find_scans(str(tmp_path))}) == 2


def test_a_folder_within_another(folder, tmp_path, capsys):
    """Its scans would be in training by one name and held back by the other."""
    shutil.copytree(folder, tmp_path / "more" / "again")
    for number in range(6, 9):
        write_nifti(tmp_path / "more" / f"s{number}.nii.gz", values(number))
    scans = find_cohorts([str(folder), str(tmp_path / "more")])
    assert len(scans) == 8 + 3
    assert "left out 8, as" in capsys.readouterr().out


def test_two_folders_of_the_same_scans(folder, tmp_path, capsys):
    """Nothing would be left of the second: it stays, with a line."""
    shutil.copytree(folder, tmp_path / "again")
    assert len(find_cohorts([str(folder), str(tmp_path / "again")])) == 16
    assert "they are kept, or less than 2 subjects of this folder are left" in capsys.readouterr().out


def test_tables_know_copies_by_their_own_names(folder):
    (folder / "t.csv").write_text("id,sex\n" + "".join(f"s{n}.nii.gz,{'mf'[n % 2]}\n" for n in range(6)) + "x.nii,m\n")
    classes = [{"name": "male", "values": ["m"]}, {"name": "female", "values": ["f"]}]
    arguments = str(folder), {"file": "t.csv", "id": "id", "target": "sex"}, classes
    cases = {Path(case["image"]).name: case for case in classified_cases(*arguments, skip_bad=True)}
    assert "y.nii.gz" not in cases
    assert (cases["x.nii"]["label"], cases["x.nii"]["subject"]) == (0, "s0.nii.gz")
    with (folder / "t.csv").open("a") as file:
        file.write("y.nii.gz,f\n")
    with pytest.raises(InputError, match=r"subjects s0.nii.gz and x.nii and y.nii.gz have copies of one scan, but sev"):
        classified_cases(*arguments)
    cases = [Path(case["image"]).name for case in classified_cases(*arguments, skip_bad=True)]
    assert not {"s0.nii.gz", "y.nii.gz", "x.nii"} & set(cases)


@pytest.mark.parametrize("ending", ["nii", "nii.gz"])
def test_fingerprints_of_scans_that_are_empty_at_both_ends(tmp_path, ending):
    """Heads without skulls, uncompressed, had one fingerprint, and counted as trained on by each other."""
    for number in range(2):
        volume = np.zeros((64, 64, 80), np.int16)
        volume[..., 30:50] = np.random.default_rng(number).integers(1, 9, (64, 64, 20))
        nib.save(nib.Nifti1Image(volume, np.eye(4)), tmp_path / f"{number}.{ending}")
    assert fingerprint(str(tmp_path / f"0.{ending}")) != fingerprint(str(tmp_path / f"1.{ending}"))
