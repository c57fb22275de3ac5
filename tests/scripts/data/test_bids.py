# SPDX-License-Identifier: Apache-2.0

"""Data sets in BIDS: which scans are taken, whose they are, and what is left out with a word."""

from __future__ import annotations

import numpy as np
import pytest
from scripts.data import find_scans
from scripts.errors import InputError
from support import scans_of, write_dicom, write_nifti


@pytest.fixture
def bids(tmp_path, anatomy):
    mask = (anatomy(0) > 100).astype(np.uint8) * 3
    for subject in (1, 2):
        for session in (1, 2):
            name = f"sub-0{subject}_ses-{session}"
            folder = tmp_path / f"sub-0{subject}" / f"ses-{session}"
            for kind in ("T1w", "T2w")[: 3 - session]:
                write_nifti(folder / "anat" / f"{name}_{kind}.nii.gz", anatomy(subject))
            write_nifti(folder / "anat" / f"{name}_desc-brain_mask.nii.gz", mask)
            write_nifti(folder / "func" / f"{name}_task-rest_bold.nii.gz", np.stack([anatomy(0)] * 2, -1))
            (folder / "anat" / f"{name}_T1w.json").write_text("{}")
    write_nifti(tmp_path / "derivatives" / "sub-01" / "anat" / "sub-01_space-MNI_T1w.nii.gz", anatomy(1))
    (tmp_path / "dataset_description.json").write_text("{}")
    return tmp_path


def test_scans_of_the_most_frequent_suffix(bids, capsys):
    assert scans_of(bids) == {
        f"sub-0{s}/ses-{n}/anat/sub-0{s}_ses-{n}_T1w.nii.gz": f"sub-0{s}" for s in (1, 2) for n in (1, 2)
    }
    told = capsys.readouterr().out
    assert "left out 2, as " in told
    assert "is T2w, not T1w (--kind T2w takes these)" in told
    assert "left out 8" in told  # masks, and series over time
    assert "derivatives" in told


def test_another_suffix_as_the_message_says(bids):
    assert list(scans_of(bids, kind="T2w")) == [f"sub-0{s}/ses-1/anat/sub-0{s}_ses-1_T2w.nii.gz" for s in (1, 2)]
    with pytest.raises(InputError, match="no scan of kind 'FLAIR', but 4 T1w, 2 T2w: pass --kind"):
        find_scans(str(bids), kind="FLAIR")


def test_volumes_without_a_bids_name_are_told(bids, anatomy, capsys):
    """Before, one folder of BIDS hid all others."""
    names = ("control_01/anat/control_01_T1w.nii.gz", "sub-03/anat/T1w.nii.gz", "loose.nii.gz")
    expected = scans_of(bids)
    for number, name in enumerate(names):
        write_nifti(bids / name, anatomy(10 + number))
    (bids / "sub-01" / "anat").mkdir()
    (bids / "sub-01" / "anat" / "sub-01_T1w.nii.gz").symlink_to("not_fetched")
    write_nifti(bids / "runs" / "warped.nii.gz", anatomy(20))
    (bids / "runs" / "results.csv").touch()
    capsys.readouterr()
    assert scans_of(bids) == expected
    told = capsys.readouterr().out
    assert f"left out 3, as {bids / names[0]}, which is not named as BIDS has it (sub-XX/anat/" in told
    assert "sub-01_T1w.nii.gz, which is a link to a file that is not there" in told
    assert f"left out 1, as {bids / 'runs'}, which holds results of an earlier run" in told
    for name in names[:2]:  # as the message says
        new = bids / "sub-04" / "anat" / "sub-04_T1w.nii.gz" if name == names[0] else bids / name
        new.parent.mkdir(parents=True, exist_ok=True)
        (bids / name).rename(new.with_name(f"{new.parts[-3]}_T1w.nii.gz"))
    assert set(scans_of(bids).values()) == {"sub-01", "sub-02", "sub-03", "sub-04"}


def test_dicom_beside_it_is_told(bids, anatomy, capsys):
    """Before, a patient who was never converted was missing in silence."""
    expected = scans_of(bids)
    write_dicom(bids / "patient_03", anatomy(3))
    write_dicom(bids / "sourcedata" / "patient_04", anatomy(4))
    capsys.readouterr()
    assert scans_of(bids) == expected
    told = capsys.readouterr().out
    assert f"left out 1, as {bids / 'patient_03'}, which has DICOM files, which are not looked at in a BIDS" in told


def test_subjects_that_are_links(bids, tmp_path_factory):
    expected, store = scans_of(bids), tmp_path_factory.mktemp("store")
    (bids / "sub-02").rename(store / "sub-02")
    (bids / "sub-02").symlink_to(store / "sub-02")
    assert scans_of(bids) == expected


def test_links_to_folders_are_looked_into(bids, anatomy, tmp_path_factory, capsys):
    """Before, the patients there were missing in silence; a link back into the data set is no second copy of it."""
    expected, store = scans_of(bids), tmp_path_factory.mktemp("store")
    write_dicom(store / "patient_03", anatomy(3))
    write_nifti(store / "patient_04.nii.gz", anatomy(4))
    (bids / "more").symlink_to(store)
    (bids / "again").symlink_to(bids)
    capsys.readouterr()
    assert scans_of(bids) == expected
    told = capsys.readouterr().out
    assert f"left out 1, as {bids / 'more' / 'patient_03'}, which has DICOM files" in told
    assert f"left out 1, as {bids / 'more' / 'patient_04.nii.gz'}, which is not named as BIDS has it" in told


def test_a_folder_that_only_looks_like_bids(tmp_path, anatomy):
    names = [f"sub-0{n}/ses-1/scan/T1_mprage.nii.gz" for n in (1, 2)]
    for number, name in enumerate(names):
        write_nifti(tmp_path / name, anatomy(number))
    assert list(scans_of(tmp_path)) == names


def test_a_subjects_folder(bids):
    """Given alone, it is read as the data set is."""
    assert scans_of(bids / "sub-01") == {f"ses-{n}/anat/sub-01_ses-{n}_T1w.nii.gz": "sub-01" for n in (1, 2)}


def test_one_subject_is_not_two_for_its_sessions(bids):
    with pytest.raises(InputError, match="2 usable scan"):
        find_scans(str(bids), subject_key="sub-", kind="T2w")
