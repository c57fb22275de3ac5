# SPDX-License-Identifier: Apache-2.0

"""Prepared scans: intensities to 0..1, and the disk cache that knows when it is out of date."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from scripts.data import cached_dataset, file_stamp, find_scans
from scripts.errors import InputError
from scripts.transforms import scale_intensity
from support import write_dicom, write_itk, write_nifti


class TestIntensity:
    def test_window(self):
        image = torch.tensor([[-2000.0, -1024.0, 0.0, 512.0, 1024.0, 3000.0]])
        scaled = scale_intensity(["image"], "window", [-1024, 1024])({"image": image})["image"]
        assert torch.allclose(scaled, torch.tensor([[0, 0, 0.5, 0.75, 1, 1]]))

    def test_percentiles_are_those_of_the_image(self, anatomy):
        """The scale of a scanner does not matter; one bright voxel neither."""
        image = torch.from_numpy(anatomy(0))[None]
        scaling = scale_intensity(["image"], "percentiles", percentiles=[1, 99])
        scaled = scaling({"image": image})["image"]
        assert torch.allclose(scaling({"image": 1000 * image + 5e4})["image"], scaled, atol=1e-3)
        spiked = image.clone()
        spiked[0, 0, 0, 0] = 1e6
        assert torch.allclose(scaling({"image": spiked})["image"][0, 1:], scaled[0, 1:], atol=0.01)
        assert (scaled.min(), scaled.max()) == (0, 1)
        assert 0.005 < (scaled == 0).float().mean() < 0.02

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"intensity": "hounsfield"}, "intensity is 'percentiles' .* not 'hounsfield'"),
            ({"intensity": "window", "window": [5, 5]}, r"window \[5, 5\] must be \[lower, upper\]"),
            ({"intensity": "window", "window": [5]}, "window must be 2 numbers"),
            ({"intensity": "window", "window": "soft"}, "window must be 2 numbers"),
            ({"percentiles": [99, 1]}, r"percentiles \[99, 1\] must be \[lower, upper\]"),
            ({"percentiles": [-1, 99]}, "percentiles must be 2 numbers of 0 or more"),
            ({"percentiles": [1, 200]}, "within 0 to 100"),
        ],
    )
    def test_what_is_no_range(self, settings, message):
        with pytest.raises(InputError, match=message):
            scale_intensity(["image"], **settings)


class TestDiskCache:
    @pytest.fixture
    def prepare(self, preprocessing, tmp_path):
        """Prepare scans by way of a disk cache; returns the volumes and the names of the cached files."""

        def run(scans, **settings):
            cache = tmp_path / "cache"
            dataset = cached_dataset(scans, preprocessing(**settings), cache_dir=str(cache))
            volumes = [np.asarray(item["image"]) for item in dataset]
            return volumes, {path.name: path.stat().st_mtime_ns for path in cache.glob("*.pt")}

        return run

    def test_second_run_reads_the_cache(self, cohort, prepare):
        scans = find_scans(str(cohort))
        first, files = prepare(scans)
        second, again = prepare(scans)
        assert files == again
        assert len(files) == 6
        assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))

    def test_change_of_a_file(self, tmp_path, make_cohort, anatomy, prepare):
        make_cohort(tmp_path / "scans", subjects=2)
        scans = find_scans(str(tmp_path / "scans"))
        before, files = prepare(scans)
        write_nifti(Path(scans[0]["image"]), anatomy(7))
        after, more = prepare(scans)
        assert (len(files), len(more)) == (2, 3)
        assert not np.array_equal(before[0], after[0])
        assert np.array_equal(before[1], after[1])

    def test_change_of_a_slice(self, tmp_path, anatomy, prepare):
        """A file rewritten within a DICOM series counts, though its folder's time stays."""
        write_dicom(tmp_path / "series", anatomy(0))
        before, _ = prepare([{"image": str(tmp_path / "series")}])
        path = tmp_path / "series" / "slice_3.dcm"
        item = pydicom.dcmread(path)
        item.PixelData = bytes(len(item.PixelData))
        item.save_as(path)
        after, _ = prepare([{"image": str(tmp_path / "series")}])
        assert not np.array_equal(before[0], after[0])

    @pytest.mark.parametrize("settings", [{"window": [-300, 300]}, {"pixdim": [2.0, 2.0, 2.0]}, {"orientation": "LPS"}])
    def test_change_of_the_preprocessing(self, cohort, prepare, settings):
        scans = find_scans(str(cohort))[:1]
        before, _ = prepare(scans)
        after, files = prepare(scans, **settings)
        assert len(files) == 2
        assert not np.array_equal(before[0], after[0])


class TestStamps:
    """A scan that has changed since it was found good, or prepared, is looked at again."""

    @pytest.mark.parametrize("touch", ["same time", "same second", "new time"])
    def test_another_content_of_the_same_size(self, tmp_path, touch):
        for name in "ab":
            write_nifti(tmp_path / "scans" / f"{name}.nii", np.random.default_rng(ord(name)).random((8, 8, 8)))
        path = tmp_path / "scans" / "a.nii"
        assert len(find_scans(str(tmp_path / "scans"), cache_dir=str(tmp_path / "cache"))) == 2
        before = path.stat().st_mtime_ns
        write_nifti(path, np.zeros((8, 8, 8)))
        times = {"same time": before, "same second": before // 10**9 * 10**9, "new time": before + 5 * 10**9}
        os.utime(path, ns=(times[touch], times[touch]))
        with pytest.raises(InputError, match=r"a\.nii is constant"):
            find_scans(str(tmp_path / "scans"), cache_dir=str(tmp_path / "cache"))

    def test_files_that_belong_to_a_scan(self, tmp_path):
        """Voxels beside a header; further channels; a slice in the place of another, with an earlier time."""
        write_itk(tmp_path / "a.mhd", np.random.default_rng(0).random((8, 8, 8)))
        for channel in range(3):
            write_nifti(tmp_path / f"case_{channel:04d}.nii", np.zeros((8, 8, 8)))
        write_dicom(tmp_path / "series", np.random.default_rng(0).random((8, 8, 8)))
        scans = [str(tmp_path / name) for name in ("a.mhd", "case_0000.nii", "series")]
        stamps = [file_stamp(path) for path in scans]
        assert stamps == [file_stamp(path) for path in scans]
        (tmp_path / "a.raw").write_bytes(bytes(8))
        (tmp_path / "case_0002.nii").write_bytes(bytes(8))
        first, second = sorted((tmp_path / "series").iterdir())[:2]
        first.write_bytes(second.read_bytes())
        os.utime(first, ns=(0, 0))
        assert all(before != file_stamp(path) for before, path in zip(stamps, scans, strict=True))
