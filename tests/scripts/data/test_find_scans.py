# SPDX-License-Identifier: Apache-2.0

"""Scans are found in any format, left out or refused, and prepared once."""

from __future__ import annotations

import json
import os
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from scripts.data import check_scan, find_scans
from scripts.errors import InputError
from support import cut, write_dicom, write_itk, write_nifti

find_scans_module = import_module("scripts.data.find_scans")  # the package has a function of that name


def image_only(scans: list[dict], folder: Path) -> list[str]:
    return [os.path.relpath(scan["image"], folder) for scan in scans]


class TestFormats:
    def test_every_format_is_found_and_prepared_alike(self, tmp_path, anatomy, preprocessing):
        """The same anatomy in seven files, of three readers and four orientations, gives the same prepared volume."""
        volume = np.round(anatomy(0))[:, :22, :20]
        write_nifti(tmp_path / "a" / "one.nii.gz", volume)
        write_nifti(tmp_path / "one.nii", volume[::-1].transpose(2, 0, 1), np.eye(4)[[1, 2, 0, 3]] * [1, -1, 1, 1])
        write_nifti(tmp_path / "b" / "one_volume_4d.nii.gz", volume[..., None])
        write_itk(tmp_path / "c" / "d" / "ONE.MHA".lower(), volume)
        write_itk(tmp_path / "c" / "one.nrrd", volume, compression=True)
        write_itk(tmp_path / "c" / "one.mhd", volume)
        write_dicom(tmp_path / "e" / "series", volume)
        scans = find_scans(str(tmp_path))
        expected = ["a/one.nii.gz", "b/one_volume_4d.nii.gz", "c/d/one.mha", "c/one.mhd", "c/one.nrrd", "e/series"]
        assert image_only(scans, tmp_path) == [*expected, "one.nii"]
        prepared = [np.asarray(preprocessing()({"image": scan["image"]})["image"]) for scan in scans]
        for scan, found in zip(scans, prepared, strict=True):
            assert found.shape == (1, 24, 24, 24)
            assert np.allclose(found, prepared[0], atol=1e-3), scan["image"]
        assert prepared[0].std() > 0.05  # an anatomy, not an empty field

    @pytest.mark.parametrize("name", ["IM{:05}", "1.2.840.113619.{}", "scan.{}", "{}.IMA"])
    def test_dicom_needs_no_particular_file_name(self, tmp_path, anatomy, name):
        write_dicom(tmp_path / "series", anatomy(0), name)
        write_nifti(tmp_path / "other.nii", anatomy(1))
        assert image_only(find_scans(str(tmp_path)), tmp_path) == ["other.nii", "series"]

    def test_spacing_is_respected(self, tmp_path, anatomy, preprocessing):
        """Every second voxel of a scan, said to be 2 mm apart, looks like the scan; said to be 1 mm, it does not."""
        volume = anatomy(0)
        write_nifti(tmp_path / "fine.nii", volume)
        write_nifti(tmp_path / "coarse.nii", volume[::2, ::2, ::2], np.diag([2.0, 2.0, 2.0, 1.0]))
        write_nifti(tmp_path / "wrong.nii", volume[::2, ::2, ::2])
        fine, coarse, wrong = (
            np.asarray(preprocessing()({"image": str(tmp_path / f"{name}.nii")})["image"])[:, 2:22, 2:22, 2:22].ravel()
            for name in ("fine", "coarse", "wrong")
        )
        assert np.corrcoef(fine, coarse)[0, 1] > 0.97
        assert np.corrcoef(fine, wrong)[0, 1] < 0.5

    def test_hidden_files_are_left_alone_and_links_walked_once(self, tmp_path, anatomy):
        scans, elsewhere = tmp_path / "scans", tmp_path / "elsewhere"
        write_nifti(scans / "a.nii", anatomy(0))
        write_nifti(elsewhere / "b.nii", anatomy(1))
        (scans / "._a.nii").write_bytes(b"resource fork")
        (scans / "linked").symlink_to(elsewhere)
        (elsewhere / "back").symlink_to(scans)
        assert image_only(find_scans(str(scans)), scans) == ["a.nii", "linked/b.nii"]


class TestDescription:
    def test_only_training_images_are_taken(self, tmp_path, anatomy, make_cohort):
        make_cohort(tmp_path, subjects=3)
        write_nifti(tmp_path / "imagesTs" / "test.nii.gz", anatomy(9))
        scans = find_scans(str(tmp_path))
        assert image_only(scans, tmp_path) == [f"imagesTr/subject_{i}.nii.gz" for i in range(3)]
        assert [Path(scan["label"]).parent.name for scan in scans] == ["labelsTr"] * 3

    def test_labels_are_not_needed(self, tmp_path, make_cohort):
        """Neither a list of mere names nor labels that are not there hinder."""
        make_cohort(tmp_path, subjects=3)
        description = json.loads((tmp_path / "dataset.json").read_text())
        description["training"][0] = description["training"][0]["image"]
        description["training"][1]["label"] = "./labelsTr/none.nii.gz"
        (tmp_path / "dataset.json").write_text(json.dumps(description))
        assert ["label" in scan for scan in find_scans(str(tmp_path))] == [False, False, True]

    @pytest.mark.parametrize(
        "text", ["{", "[]", "{}", '{"training": 5}', '{"training": [{"label": "x"}]}', '{"training": [3]}', "\xff"]
    )
    def test_broken_description_is_named(self, tmp_path, make_cohort, text):
        make_cohort(tmp_path, subjects=2)
        (tmp_path / "dataset.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(InputError, match=r"dataset\.json (is neither|cannot be read as JSON)"):
            find_scans(str(tmp_path))
        assert len(find_scans(str(tmp_path), layout={"images": "imagesTr/*.nii.gz"})) == 2  # as the message says

    def test_entries_that_do_not_exist_are_listed_with_the_damaged(self, tmp_path, make_cohort):
        make_cohort(tmp_path, subjects=5)
        (tmp_path / "imagesTr" / "subject_1.nii.gz").unlink()
        (tmp_path / "imagesTr" / "subject_3.nii.gz").write_bytes(b"")
        with pytest.raises(InputError) as caught:
            find_scans(str(tmp_path))
        first, *lines = str(caught.value).splitlines()
        assert first.startswith("2 of 5 scans cannot be used (--skip_bad True")
        assert "subject_1.nii.gz does not exist; correct dataset.json" in lines[0]
        assert "subject_3.nii.gz cannot be read" in lines[1]
        assert len(lines) == 2


class TestSubjects:
    def test_no_key(self, cohort):
        assert len({scan["subject"] for scan in find_scans(str(cohort))}) == 6

    @pytest.mark.parametrize(
        ("key", "expected"),
        [
            ("site", ["A", "B", "A", "B", "A", "B"]),
            (r"subject_[0-2]|subject", ["subject_0", "subject_1", "subject_2", "subject", "subject", "subject"]),
            (r"subject_(\d)", list("012345")),
            (r"subject_([01])|_(\d)|x", list("012345")),
            (r"(x)?\d", list("012345")),
            (lambda name: int(name[-8]) // 2, list("001122")),
        ],
        ids=["column", "whole match", "group", "groups to choose from", "group that may be missing", "function"],
    )
    def test_key(self, cohort, key, expected):
        assert [scan["subject"] for scan in find_scans(str(cohort), subject_key=key)] == expected

    @pytest.mark.parametrize(
        ("key", "message"),
        [
            ("patient=(.*)", r"subject_0\.nii\.gz: subject_key 'patient=\(\.\*\)' is neither a column"),
            ("subject_(", "no valid regular expression"),
            ("$lambda path: path", "is an expression, but on the command line it is text"),
            ("subject", "1 subject"),
        ],
    )
    def test_key_that_does_not_fit(self, cohort, key, message):
        with pytest.raises(InputError, match=message):
            find_scans(str(cohort), subject_key=key)


class TestBadScans:
    def test_skipping_says_what_is_left_out(self, tmp_path, make_cohort, capsys):
        make_cohort(tmp_path, subjects=4, description=False)
        bad = tmp_path / "imagesTr" / "subject_2.nii.gz"
        cut(bad)
        assert image_only(find_scans(str(tmp_path), skip_bad=True), tmp_path / "imagesTr") == [
            f"subject_{i}.nii.gz" for i in (0, 1, 3)
        ]
        shown = capsys.readouterr().out
        assert "left out 1 of 4 scans" in shown
        assert str(bad) in shown

    def test_skipping_leaves_too_few(self, tmp_path, make_cohort):
        make_cohort(tmp_path, subjects=2, description=False)
        cut(tmp_path / "imagesTr" / "subject_1.nii.gz")
        with pytest.raises(InputError, match=r"1 usable scan\(s\) of 1 subject"):
            find_scans(str(tmp_path), skip_bad=True)

    @pytest.mark.parametrize("make", [lambda p: None, lambda p: p.write_text("x"), lambda p: p.mkdir()])
    def test_no_scans(self, tmp_path, make):
        """A folder that is not there, is a file, or is empty."""
        make(tmp_path / "scans")
        with pytest.raises(InputError, match=r"dataset_dir .*scans (does not exist or is not a folder|holds no scan)"):
            find_scans(str(tmp_path / "scans"))


class TestRecordOfChecks:
    @pytest.fixture
    def checked(self, monkeypatch):
        """Names of the scans read by the check."""
        names, check = [], find_scans_module.inspect_scan
        monkeypatch.setattr(
            find_scans_module,
            "inspect_scan",
            lambda path, *rest, **more: (names.append(Path(path).name), check(path, *rest, **more))[1],
        )
        return names

    def test_good_scans_are_read_once(self, tmp_path, make_cohort, checked):
        """A second run reads what changed since; what was bad is read again."""
        make_cohort(tmp_path / "scans", subjects=4)
        folder, cache = tmp_path / "scans" / "imagesTr", tmp_path / "cache"
        bad, later = folder / "subject_1.nii.gz", folder / "subject_3.nii.gz"
        whole = bad.read_bytes()
        cut(bad)
        find_scans(str(tmp_path / "scans"), skip_bad=True, cache_dir=str(cache))
        assert len(checked) == 4
        checked.clear()
        bad.write_bytes(whole)
        cut(later)
        scans = find_scans(str(tmp_path / "scans"), skip_bad=True, cache_dir=str(cache))
        assert sorted(checked) == [bad.name, later.name]
        assert image_only(scans, folder) == [f"subject_{i}.nii.gz" for i in range(3)]

    def test_ct_is_remembered(self, tmp_path, checked):
        """What the values of a scan tell is remembered too: it is NumPy's truth value, which is no JSON."""
        for number in range(3):
            rng = np.random.default_rng(number)
            image = np.full((24, 24, 24), -1000.0, dtype=np.float32)
            image[4:20, 4:20, 4:20] = rng.normal(40, 30, (16, 16, 16))
            (tmp_path / "scans").mkdir(exist_ok=True)
            write_nifti(tmp_path / "scans" / f"patient_{number}.nii.gz", image)
        for reads in (3, 0):
            checked.clear()
            assert len(find_scans(str(tmp_path / "scans"), cache_dir=str(tmp_path / "cache"))) == 3
            assert len(checked) == reads

    def test_record_cut_short_is_made_anew(self, cohort, tmp_path, checked):
        find_scans(str(cohort), cache_dir=str(tmp_path))
        cut(tmp_path / "checked_scans.json")
        assert len(find_scans(str(cohort), cache_dir=str(tmp_path))) == 6
        assert len(checked) == 12

    def test_cache_dir_that_cannot_be_written(self, cohort, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(InputError, match=r"cache_dir .* pass another --cache_dir"):
            find_scans(str(cohort), cache_dir=str(tmp_path / "file" / "cache"))


def test_a_name_in_two_spellings_is_one_subject(tmp_path, capsys):
    """Accents as macOS stores them and as others do; upper and lower case alone are pointed out."""
    for number, name in enumerate(("Mu\u0308ller_t1", "Müller_t2", "sub-A_t1", "sub-A_t2", "SUB-A_t1", "SUB-A_t2")):
        volume = np.random.default_rng(number).random((6, 6, 6)).astype(np.float32)
        write_nifti(tmp_path / f"{name}.nii.gz", volume)
    assert {scan["subject"] for scan in find_scans(str(tmp_path))} == {"Müller", "sub-A", "SUB-A"}
    assert "subjects SUB-A and sub-A differ in upper and lower case alone" in capsys.readouterr().out


def test_names_that_are_no_text_are_left_out_until_they_are_renamed(tmp_path, capsys):
    """Before, a run on them ended in a traceback when its table was written."""
    for name in "abc":
        write_nifti(tmp_path / f"{name}.nii.gz", np.random.default_rng(ord(name)).random((6, 6, 6)))
    odd = os.fsencode(tmp_path) + b"/M\xfcller.nii.gz"
    os.rename(tmp_path / "a.nii.gz", odd)
    assert len(find_scans(str(tmp_path))) == 2
    assert (
        r"M\xfcller.nii.gz, which has a name that is not UTF-8 (Latin-1, perhaps): rename it" in capsys.readouterr().out
    )
    assert "rename it" in str(check_scan(os.fsdecode(odd)))
    os.rename(odd, tmp_path / "Müller.nii.gz")
    assert len(find_scans(str(tmp_path))) == 3


def test_a_series_in_a_folder_that_is_named_like_a_file(tmp_path):
    for number, name in enumerate(("a.nii", "b.nii.gz", "c.nrrd")):
        write_dicom(tmp_path / name, np.random.default_rng(number).normal(size=(6, 6, 6)))
    assert len(find_scans(str(tmp_path))) == 3
