# SPDX-License-Identifier: Apache-2.0

"""A preparation keeps names, formats, labels and geometry; goes on where it stopped; names what cannot be used."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import itk
import nibabel as nib
import numpy as np
import pytest
from lookalikes import HEART_AFFINE, write_coronary, write_covid, write_heart
from monai.data import NibabelWriter
from monai.transforms import LoadImage
from scripts.data import laid_out_images
from scripts.errors import InputError
from scripts.preparation import CropToLabel, ExtractLungs, Preparation
from scripts.preparation import prepare as preparation
from support import write_nifti

HEART = {
    "images": "**/ct_*_image.nii.gz",
    "label": ["_image.nii.gz", "_label.nii.gz"],
    "unlabelled": "**/ct_test_*_image.nii.gz",
}
CORONARY = {"images": "**/CTCA/*.nrrd", "label": ["CTCA/", "Annotations/"]}
COVID = {"images": "**/mha/*.mha"}


@pytest.fixture(scope="module")
def heart(tmp_path_factory):
    """Three labelled scans and one without label, to be read only."""
    return write_heart(tmp_path_factory.mktemp("heart"), train=3, test=1)


def prepare(source, target, layout=HEART, step=None, **settings):
    Preparation(str(source), str(target), layout, step or CropToLabel(), **settings).run()


def tree(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def stamps(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def in_world(path, mask=None):
    """Places in millimetres and values of the voxels of a mask (default: those that are not 0), in a fixed order."""
    image = LoadImage(image_only=True, dtype=None)(str(path))
    values = np.asarray(image)
    where = np.argwhere(values != 0 if mask is None else mask)
    places = nib.affines.apply_affine(np.asarray(image.affine), where).round(2)
    order = np.lexsort(places.T)
    return places[order], values[tuple(where.T)][order]


class TestGeometry:
    @pytest.mark.parametrize(
        ("write", "layout", "count"), [(write_heart, HEART, 6), (write_coronary, CORONARY, 8)], ids=["nifti", "nrrd"]
    )
    def test_no_label_is_lost_and_nothing_moves(self, tmp_path, write, layout, count):
        source, target = write(tmp_path / "source"), tmp_path / "target"
        prepare(source, target, layout, CropToLabel(margin=7.0))
        cases = [case for case in laid_out_images(source, layout) if "label" in case]
        assert len(cases) == count
        for case in cases:
            image, label = (Path(case[key]) for key in ("image", "label"))
            new_image, new_label = (target / path.relative_to(source) for path in (image, label))
            for old, new in zip(in_world(label), in_world(new_label), strict=True):
                assert np.array_equal(old, new)
            masks = [np.asarray(LoadImage(image_only=True)(str(path))) != 0 for path in (label, new_label)]
            for old, new in zip(in_world(image, masks[0]), in_world(new_image, masks[1]), strict=True):
                assert np.array_equal(old, new)
            assert masks[1].size < masks[0].size

    def test_the_margin_is_in_millimetres_and_ends_at_the_scan(self, heart, tmp_path):
        """Voxels of 4 x 4.5 x 5 mm along R, A, S; stored along A, R, S."""
        prepare(heart, tmp_path, step=CropToLabel(margin=8.0))
        for number in (1, 2, 3):
            name = f"ct_train/ct_train_100{number}_label.nii.gz"
            before, after = (np.asarray(nib.load(folder / name).dataobj) for folder in (heart, tmp_path))
            low, high = (end(np.argwhere(before), axis=0) for end in (np.min, np.max))
            expected = np.minimum(before.shape, high + 3) - np.maximum(0, low - 2)
            assert after.shape == tuple(expected)
        wide = tmp_path / "wide"
        prepare(heart, wide / "out", step=CropToLabel(margin=1000.0))
        assert np.asarray(nib.load(wide / "out" / name).dataobj).shape == before.shape

    def test_a_scan_without_label_is_kept_whole(self, heart, tmp_path, capsys):
        prepare(heart, tmp_path)
        before, after = (nib.load(folder / "ct_test" / "ct_test_2001_image.nii.gz") for folder in (heart, tmp_path))
        assert np.array_equal(before.dataobj, after.dataobj)
        assert np.allclose(after.affine, HEART_AFFINE)
        assert after.get_data_dtype() == before.get_data_dtype()
        assert "4 prepared scans" in capsys.readouterr().out

    def test_lungs_in_metaimages_with_their_table(self, tmp_path):
        source, target = write_covid(tmp_path / "source", patients=3), tmp_path / "target"
        prepare(source, target, COVID, ExtractLungs(), copied=["**/*.csv"])
        assert tree(target) == sorted([*tree(source), "prepared.json"])
        table = Path("metadata", "reference.csv")
        assert (target / table).read_bytes() == (source / table).read_bytes()
        for path in sorted(source.rglob("*.mha")):
            old, new = itk.imread(str(path)), itk.imread(str(target / path.relative_to(source)))
            assert type(old) is type(new)
            assert list(old.GetSpacing()) == pytest.approx(list(new.GetSpacing()))
            corner = old.TransformPhysicalPointToIndex(new.GetOrigin())
            array, box = itk.array_from_image(old), itk.array_from_image(new)
            x, y, z = (int(corner[axis]) for axis in range(3))
            same = array[z : z + box.shape[0], y : y + box.shape[1], x : x + box.shape[2]]
            assert same.shape == box.shape
            assert ((same == box) | (box == -1024)).all()
            assert 0.2 < (box != -1024).mean() < 0.9


class TestGoingOn:
    def test_a_second_run_does_nothing(self, heart, tmp_path, capsys):
        prepare(heart, tmp_path)
        before = stamps(tmp_path)
        prepare(heart, tmp_path)
        assert stamps(tmp_path) == before
        assert "4 scans, 4 of them prepared before" in capsys.readouterr().out

    def test_a_killed_run_goes_on(self, heart, tmp_path, monkeypatch):
        """Killed while an image is written whose label is there: what is complete stays, the rest is made."""
        write, written = NibabelWriter.write, []

        def killed(self, path, **options):
            write(self, path, **options)
            written.append(path)
            if len(written) == 3:
                content = Path(path).read_bytes()
                Path(path).write_bytes(content[: len(content) // 2])
                raise KeyboardInterrupt

        monkeypatch.setattr(preparation.WRITERS[".nii.gz"], "write", killed)
        with pytest.raises(KeyboardInterrupt):
            prepare(heart, tmp_path)
        monkeypatch.undo()
        before = stamps(tmp_path)
        assert len([path for path in before if path.name.endswith(".nii.gz") and path.name[0] != "."]) == 2
        left = tmp_path / "ct_train" / ".ct_train_1001_image.part.nii.gz"  # what a killed process cannot remove
        left.parent.mkdir(exist_ok=True)
        left.write_bytes(b"half a scan")
        prepare(heart, tmp_path)
        assert [name for name in tree(tmp_path) if "ct_" in name] == [name for name in tree(heart) if "ct_" in name]
        complete = [path for path in before if "test" in path.name]
        assert complete
        assert all(path.stat().st_mtime_ns == before[path] for path in complete)

    def test_other_settings_are_not_mixed(self, heart, tmp_path):
        prepare(heart, tmp_path)
        with pytest.raises(InputError, match=r"was prepared with .*20.* not .*5.*pass another --dataset_dir"):
            prepare(heart, tmp_path, step=CropToLabel(margin=5.0))

    def test_scans_of_another_folder_are_not_taken_for_prepared(self, heart, tmp_path):
        """Files of the same names that are there already would be kept as they are."""
        other = write_heart(tmp_path / "other", train=2, test=0)
        prepare(heart, tmp_path / "target")
        with pytest.raises(InputError, match=r"was prepared with .*source_dir.*pass another --dataset_dir"):
            prepare(other, tmp_path / "target")


class TestRefusals:
    @pytest.fixture
    def source(self, tmp_path):
        return write_heart(tmp_path / "source", train=3, test=0)

    def refused(self, source, tmp_path, **settings):
        """The message of a preparation that is refused."""
        with pytest.raises(InputError) as error:
            prepare(source, tmp_path / "target", **settings)
        return str(error.value)

    def label(self, source, change, affine=HEART_AFFINE):
        path = source / "ct_train" / "ct_train_1002_label.nii.gz"
        volume = np.asarray(nib.load(path).dataobj)
        path.unlink()
        write_nifti(path, change(volume), affine)

    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda s, self: (s / "ct_train/ct_train_1002_image.nii.gz").write_bytes(b"no scan"), "cannot be read"),
            (lambda s, self: (s / "ct_train/ct_train_1002_label.nii.gz").write_bytes(b"no scan"), "label that cannot"),
            (lambda s, self: (s / "ct_train/ct_train_1002_label.nii.gz").unlink(), "has no label file"),
            (lambda s, self: self.label(s, np.zeros_like), "has an empty label"),
            (lambda s, self: self.label(s, lambda v: v[1:]), "do not lie on one grid"),
            (lambda s, self: self.label(s, lambda v: v, np.diag([4.0, 4, 5, 1])), "do not lie on one grid"),
        ],
        ids=["image", "label", "missing", "empty", "shape", "place"],
    )
    def test_what_cannot_be_used_is_named_after_the_rest_was_done(self, source, tmp_path, spoil, message, capsys):
        spoil(source, self)
        said = self.refused(source, tmp_path)
        first, line = said.splitlines()
        assert "1 of 3 scans cannot be used (--skip_bad True" in first
        assert "ct_train_1002_image.nii.gz" in line
        assert message in line
        assert len([name for name in tree(tmp_path / "target") if "1001" in name or "1003" in name]) == 4
        assert not [name for name in tree(tmp_path / "target") if "1002" in name]
        prepare(source, tmp_path / "target", skip_bad=True)
        assert "left out 1 of 3" in capsys.readouterr().out

    def test_a_scan_without_lungs_is_named(self, source, tmp_path):
        with pytest.raises(InputError, match=r"ct_train_1001_image.nii.gz shows no lungs"):
            prepare(source, tmp_path / "target", step=ExtractLungs())

    @pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
    def test_a_folder_that_is_read_only(self, source, tmp_path):
        (tmp_path / "target").mkdir(mode=0o500)
        assert "cannot be used" in self.refused(source, tmp_path)

    def test_a_folder_that_is_a_file(self, source, tmp_path):
        (tmp_path / "target").write_text("x")
        assert "dataset_dir" in self.refused(source, tmp_path)

    def test_a_full_disk(self, source, tmp_path, monkeypatch):
        def full(self, path, **options):
            Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(preparation.WRITERS[".nii.gz"], "write", full)
        message = self.refused(source, tmp_path)
        assert "cannot be written" in message
        assert "No space left" in message
        assert [name for name in tree(tmp_path / "target") if "ct_" in name] == []

    def test_a_format_that_cannot_be_written(self, tmp_path):
        @dataclass(frozen=True)
        class AsItIs:
            def __call__(self, image, label):
                return image, label

        (source := tmp_path / "source").mkdir()
        image = itk.image_from_array(np.arange(512, dtype=np.int16).reshape(8, 8, 8))
        itk.imwrite(image, str(source / "a.mhd"))
        with pytest.raises(InputError, match=r"a\.mhd cannot be written: the formats are \.nii"):
            prepare(source, tmp_path / "target", {"images": "*.mhd"}, AsItIs())

    @pytest.mark.parametrize(("source", "target"), [("a", "a"), ("a", "a/b"), ("a/b", "a")])
    def test_folders_in_each_other(self, tmp_path, source, target):
        (tmp_path / source).mkdir(parents=True)
        with pytest.raises(InputError, match="must not lie in each other"):
            prepare(tmp_path / source, tmp_path / target)

    def test_no_source(self, tmp_path):
        assert "does not exist: pass --source_dir" in self.refused(tmp_path / "nowhere", tmp_path)

    def test_another_data_set_leaves_nothing_behind(self, cohort, tmp_path):
        assert "holds no file **/ct_*_image.nii.gz" in self.refused(cohort, tmp_path)
        assert not (tmp_path / "target").exists()

    @pytest.mark.parametrize(
        ("settings", "message"), [({"workers": 0}, "workers"), ({"skip_bad": "yes"}, "skip_bad must be True or False")]
    )
    def test_settings(self, source, tmp_path, settings, message):
        assert message in self.refused(source, tmp_path, **settings)

    @pytest.mark.parametrize("margin", [-1, "wide", None])
    def test_margin(self, margin):
        with pytest.raises(InputError, match="margin"):
            CropToLabel(margin=margin)
