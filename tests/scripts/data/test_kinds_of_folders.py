# SPDX-License-Identifier: Apache-2.0

"""What counts as a scan in folders as people have them, whose it is, and what is left out with a word."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from scripts.data import find_cohorts, find_scans, label_names
from scripts.data.label_maps import is_label_map
from scripts.errors import InputError
from support import scans_of, write_dicom, write_nifti


@pytest.fixture
def label(anatomy):
    return (anatomy(0) > 100).astype(np.uint8) * 3


class TestNnUNet:
    @pytest.fixture
    def raw(self, tmp_path, anatomy, label):
        for case in range(3):
            for channel in range(2):
                write_nifti(tmp_path / "imagesTr" / f"head_{case:03d}_{channel:04d}.nii.gz", anatomy(case))
            write_nifti(tmp_path / "labelsTr" / f"head_{case:03d}.nii.gz", label)
        (tmp_path / "imagesTr" / "._head_000_0000.nii.gz").write_bytes(b"resource fork")
        (tmp_path / "labelsTr" / "head_002.nii.gz").unlink()
        self.describe(tmp_path)
        return tmp_path

    @staticmethod
    def describe(folder, **other):
        content = {"channel_names": {"0": "T1", "1": "T2"}, "labels": {"background": 0, "a": 3}, "numTraining": 3}
        content |= {"file_ending": ".nii.gz", **other}
        (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8-sig")

    def test_cases_and_channels(self, raw, capsys):
        """The first channel, or the one that is asked for by its name or number; the others are left out and said."""
        for kind, channel in ((None, 0), ("T2", 1), (1, 1), ("channel 1 T2", 1)):
            scans = find_scans(str(raw), kind=kind)
            assert [(Path(s["image"]).name, s["subject"], "label" in s) for s in scans] == [
                (f"head_{case:03d}_{channel:04d}.nii.gz", f"head_{case:03d}", case < 2) for case in range(3)
            ]
            assert "left out 3, as" in capsys.readouterr().out

    def test_files_listed_in_the_description(self, raw):
        listed = {"x": {"images": ["imagesTr/head_001_0000.nii.gz"], "label": "labelsTr/head_001.nii.gz"}}
        self.describe(raw, dataset=listed)
        assert list(scans_of(raw)) == ["imagesTr/head_001_0000.nii.gz"]

    @pytest.mark.parametrize(
        ("ending", "message"), [(".nrrd", "correct file_ending"), (".tif", "no imagesTr/<case>_0000.tif")]
    )
    def test_another_ending_than_the_files_have(self, raw, ending, message):
        self.describe(raw, file_ending=ending)
        with pytest.raises(InputError, match=message):
            find_scans(str(raw))

    def test_without_its_description_label_maps_are_left_out(self, raw, capsys):
        (raw / "dataset.json").unlink()
        assert all(path.startswith("imagesTr") for path in scans_of(raw))
        assert "is a label map or mask (--label_maps True takes it for a scan)" in capsys.readouterr().out
        assert len(scans_of(raw, label_maps=True)) == 8

    def test_version_1_lists_cases_without_their_channel(self, raw):
        entries = [{"image": "./imagesTr/head_000.nii.gz", "label": "./labelsTr/head_000.nii.gz"}]
        (raw / "dataset.json").write_text(json.dumps({"training": entries}))
        assert list(scans_of(raw)) == ["imagesTr/head_000_0000.nii.gz"]


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ({"0": "background", "1": "a"}, {0: "background", 1: "a"}),
        ({"background": 0, "a": 1}, {0: "background", 1: "a"}),
        ({"background": 0, "all": [1, 2, 3], "core": [2, 3], "e": 3}, {0: "background", 1: "all", 2: "core", 3: "e"}),
        (["background", "a"], {0: "background", 1: "a"}),
    ],
)  # fmt: skip
def test_names_of_labels_in_both_directions(labels, names):
    assert label_names({"labels": labels}) == names


@pytest.mark.parametrize("labels", [None, {}, 5, {"a": "b"}, {"a": -1}, {"a": []}, {"a": [True]}])
def test_labels_in_no_known_form(labels):
    with pytest.raises(InputError, match='needs "labels" such as'):
        label_names({"labels": labels})


class TestContrasts:
    def test_brats(self, tmp_path, anatomy, label, capsys):
        """Contrasts are scans of one subject; the segmentation is none, and said so."""
        for n in (1, 2):
            folder = tmp_path / f"BraTS_{n}"
            for contrast in ("t1", "t1ce", "t2", "flair"):
                write_nifti(folder / f"BraTS_{n}_{contrast}.nii.gz", anatomy(n))
            write_nifti(folder / f"BraTS_{n}_seg.nii.gz", label)
        scans = scans_of(tmp_path)
        assert len(scans) == 8
        assert set(scans.values()) == {f"BraTS_{n}/BraTS_{n}" for n in (1, 2)}
        assert "left out 2, as " in capsys.readouterr().out

    def test_names_of_contrasts_alone_and_flat_folders(self, tmp_path, anatomy):
        for n in (1, 2):
            for contrast in ("T1", "FLAIR"):
                write_nifti(tmp_path / "a" / f"p{n}" / f"{contrast}.nii.gz", anatomy(n))
                write_nifti(tmp_path / "b" / f"p{n}-{contrast}.nii.gz", anatomy(n + 2))
        assert set(scans_of(tmp_path).values()) == {"a/p1", "a/p2", "b/p1", "b/p2"}


class TestLabelMaps:
    @pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
    @pytest.mark.parametrize("name", ["x_seg.nii", "x.nii", "brainmask.nii", "labels/x.nii"])
    def test_by_what_they_hold_and_their_name(self, label, dtype, name):
        assert is_label_map(label.astype(dtype), name)

    @pytest.mark.parametrize("name", ["x_seg.nii", "masked_T1.nii", "x.nii", "labelsTr/x.nii"])
    def test_scans_are_scans_whatever_they_are_called(self, anatomy, name):
        assert not is_label_map(anatomy(0), name)
        assert not is_label_map(np.round(anatomy(0)).astype(np.int16), name)
        grey = np.clip(anatomy(0) / 4 + 100, 0, 255).astype(np.uint8)
        assert not is_label_map(np.where(anatomy(1) > 0, grey, 0), name)

    def test_a_resampled_mask_and_an_empty_one(self, label):
        soft = label.astype(np.float32)
        soft[1:-1] = (soft[:-2] + soft[2:]) / 2
        assert is_label_map(soft, "x_mask.nii.gz")
        assert is_label_map(np.zeros((5, 6, 7)), "x_seg.nii")
        assert not is_label_map(np.zeros((5, 6, 7)), "x.nii")  # a constant scan, which is refused

    def test_maps_of_shares(self, anatomy):
        """By their name and their values; a scan of the same values is one."""
        share = (anatomy(0) - anatomy(0).min()) / np.ptp(anatomy(0))
        for name in ("x_probseg.nii", "x_pve_1.nii", "x_label-GM_probseg.nii"):
            assert is_label_map(share, name)
            assert not is_label_map(anatomy(0), name)
        assert not is_label_map(share, "problem_1/x.nii")

    def test_a_folder_of_nothing_else_is_what_was_asked_for(self, tmp_path, label):
        write_nifti(tmp_path / "a.nii", label)
        write_nifti(tmp_path / "b.nii", label)
        assert len(scans_of(tmp_path)) == 2


class TestDicom:
    def describe(self, folder: Path, **values) -> None:
        for path in folder.iterdir():
            item = pydicom.dcmread(path)
            for name, value in values.items():
                setattr(item, name, value)
            item.save_as(path, enforce_file_format=True)

    def test_a_disc_with_an_index_a_localiser_and_structures(self, tmp_path, anatomy, capsys):
        """The index is no scan; series of one disc are of one subject; what planned the scan is left out and said."""
        for n in (1, 2):
            disc = tmp_path / f"cd{n}"
            write_dicom(disc / "IMG" / "A", anatomy(n), "I{}")
            write_dicom(disc / "IMG" / "B", anatomy(n), "I{}")
            self.describe(disc / "IMG" / "B", SeriesDescription="3-plane localizer")
            write_dicom(disc / "IMG" / "C", anatomy(n)[..., :2], "I{}")
            write_dicom(disc / "IMG" / "D", anatomy(n), "I{}")
            (disc / "DICOMDIR").write_bytes(bytes(128) + b"DICM" + bytes(20))
            (disc / "AUTORUN.INF").write_text("x" * 200)
        assert scans_of(tmp_path) == {f"cd{n}/IMG/{s}": f"cd{n}" for n in (1, 2) for s in "AD"}
        told = capsys.readouterr().out
        assert "left out 2, as " in told
        assert "planning the scan" in told
        assert "less than 4 images" in told

    def test_several_series_in_one_folder(self, tmp_path, anatomy):
        """Each is a scan of its own, named by its description; what macOS leaves is no part of them."""
        for n in (1, 2):
            for kind in ("T1", "T2"):
                write_dicom(tmp_path / "parts" / kind, anatomy(n), kind + "_{}.dcm")
                self.describe(tmp_path / "parts" / kind, SeriesDescription=kind + " axial")
                for path in (tmp_path / "parts" / kind).iterdir():
                    (tmp_path / "scans" / f"p{n}").mkdir(parents=True, exist_ok=True)
                    shutil.move(path, tmp_path / "scans" / f"p{n}" / path.name)
            (tmp_path / "scans" / f"p{n}" / ".DS_Store").write_bytes(bytes(200))
            (tmp_path / "scans" / f"p{n}" / "._T1_0.dcm").write_bytes(bytes(200))
        (tmp_path / "scans" / "__MACOSX" / "p1").mkdir(parents=True)
        write_dicom(tmp_path / "scans" / "__MACOSX" / "p1", anatomy(0))
        assert scans_of(tmp_path / "scans") == {f"p{n}/{kind}_axial": f"p{n}" for n in (1, 2) for kind in ("T1", "T2")}

    def test_dicom_beside_its_conversion(self, tmp_path, anatomy, capsys):
        write_dicom(tmp_path / "p", anatomy(0))
        write_nifti(tmp_path / "p" / "converted.nii", anatomy(0))
        assert list(scans_of(tmp_path)) == ["p/converted.nii"]
        assert "DICOM files beside volumes" in capsys.readouterr().out


def test_one_file_is_one_scan(tmp_path, anatomy, capsys):
    """A link to a file, or a file listed twice, would be another person."""
    for name in ("a/x.nii", "b.nii"):
        write_nifti(tmp_path / name, anatomy(0))
    (tmp_path / "c.nii").symlink_to(tmp_path / "b.nii")
    (tmp_path / "d").symlink_to(tmp_path / "a")
    assert list(scans_of(tmp_path)) == ["a/x.nii", "b.nii"]
    assert "left out 1, as" in capsys.readouterr().out
    (tmp_path / "dataset.json").write_text(json.dumps({"training": ["b.nii", "b.nii", "a/x.nii"]}))
    assert list(scans_of(tmp_path)) == ["b.nii", "a/x.nii"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_json_as_windows_writes_it(tmp_path, anatomy, encoding):
    write_nifti(tmp_path / "ü.nii", anatomy(0))
    (tmp_path / "dataset.json").write_text(json.dumps({"training": ["ü.nii"]}, ensure_ascii=False), encoding)
    assert list(scans_of(tmp_path)) == ["ü.nii"]


def test_formats_that_are_not_read_are_told(tmp_path, anatomy, capsys):
    write_nifti(tmp_path / "a.nii", anatomy(0))
    (tmp_path / "b.mgz").write_bytes(bytes(400))
    assert list(scans_of(tmp_path)) == ["a.nii"]
    assert "left out 1, as" in (told := capsys.readouterr().out)
    assert "b.mgz, which is of a format that is not read" in told


def test_results_of_an_earlier_run_are_no_scans(tmp_path, anatomy):
    write_nifti(tmp_path / "a.nii", anatomy(0))
    write_nifti(tmp_path / "out" / "b_to_a" / "warped.nii", anatomy(1))
    (tmp_path / "out" / "results.csv").write_text("result,scan\n")
    assert list(scans_of(tmp_path)) == ["a.nii"]


def test_dry_run_lists_what_would_be_used_and_ends(tmp_path, anatomy, label, capsys):
    for n in range(2):
        write_nifti(tmp_path / f"p{n}_t1.nii", anatomy(n)[..., :20], np.diag([1, 2, 3.5, 1]))
    write_nifti(tmp_path / "p0_seg.nii", label)
    for run in (find_scans, find_cohorts):
        with pytest.raises(SystemExit) as ended:
            run(str(tmp_path), dry_run=True)
        assert ended.value.code == 0
        told = capsys.readouterr().out
        assert "24x24x20  1x2x3.5" in told
        assert "2 scans of 2 subjects would be used; 1 left out" in told
        assert f"left out: {tmp_path / 'p0_seg.nii'} is a label map" in told
