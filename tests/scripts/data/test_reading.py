# SPDX-License-Identifier: Apache-2.0

"""Scans are read without noise, and judged before training."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import LoadImage
from scripts.data import LoadScan, LoadScand, check_scan
from support import cut, write_dicom, write_itk, write_nifti


class TestReaders:
    def test_making_and_using_them_is_silent(self, caplog, tmp_path, anatomy):
        """No reader that nobody asked for warns of libraries that are not there."""
        write_nifti(tmp_path / "a.nii", anatomy(0))
        with warnings.catch_warnings(record=True) as caught, caplog.at_level(logging.DEBUG):
            warnings.simplefilter("always")
            LoadScand("image")({"image": str(tmp_path / "a.nii")})
        assert [str(warning.message) for warning in caught] == []
        assert caplog.text == ""

    @pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "b.nrrd", "c.mha", "series"])
    def test_values_and_place_are_those_of_monai(self, tmp_path, anatomy, name):
        """For ordinary files every bit of what MONAI's own readers give."""
        volume, path = np.round(anatomy(0))[:, :22, :20], tmp_path / name
        if name == "series":
            write_dicom(path, volume)
        else:
            (write_nifti if ".nii" in name else write_itk)(path, volume)
        theirs = LoadImage(image_only=True, ensure_channel_first=True)(str(path))
        ours = LoadScan()(str(path))
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours.as_tensor(), theirs.as_tensor())
        assert torch.equal(ours.affine, theirs.affine)

    def test_big_endian_nifti2_and_uncompressed_are_read(self, tmp_path, anatomy):
        """Under names that do not say so."""
        volume = np.round(anatomy(0)).astype(np.int16)
        big = nib.Nifti1Image(volume.astype(">i2"), np.eye(4), nib.Nifti1Header(endianness=">"))
        nib.save(big, tmp_path / "big.nii.gz")
        nib.save(nib.Nifti2Image(volume, np.eye(4)), tmp_path / "two.nii.gz")
        write_nifti(tmp_path / "plain.nii", volume)
        (tmp_path / "plain.nii").rename(tmp_path / "plain.nii.gz")
        for name in ("big", "two", "plain"):
            path = str(tmp_path / f"{name}.nii.gz")
            assert check_scan(path) is None
            for dtype in (np.float32, None):
                assert np.array_equal(LoadScan(dtype)(path)[0], volume), name


def with_affine(path: Path, diagonal: list[float]) -> None:
    """Overwrite the affine matrix in a NIfTI header, which nibabel refuses to write."""
    content = bytearray(path.read_bytes())
    header = nib.Nifti1Header(bytes(content[:348]))
    for row, value in zip("xyz", diagonal, strict=True):
        header[f"srow_{row}"] = [value if axis == row else 0 for axis in "xyz"] + [0]
    header["pixdim"][1:4] = diagonal
    header["sform_code"], header["qform_code"] = 1, 0
    content[:348] = header.binaryblock
    path.write_bytes(bytes(content))


class TestBadScans:
    @pytest.mark.parametrize(
        ("name", "spoil", "message"),
        [
            ("a.nii.gz", cut, "cannot be read"),
            ("a.nii.gz", lambda path: cut(path, 0.999), "cannot be read"),
            ("a.nii", cut, "cannot be read"),
            ("a.nii", lambda path: path.write_bytes(b""), "cannot be read"),
            ("a.nii", lambda path: path.write_text("patient,age\n1,50\n" * 60), "cannot be read"),
            ("a.nrrd", cut, "cannot be read"),
            ("a.nrrd", lambda path: path.write_bytes(b""), "cannot be read"),
            ("a.mha", cut, "cannot be read"),
            ("a.mhd", lambda path: path.with_suffix(".raw").unlink(), "cannot be read"),
            ("a.nii", lambda path: with_affine(path, [1, 1, 0]), "affine matrix is singular"),
            ("a.nii", lambda path: with_affine(path, [1, float("nan"), 1]), "affine matrix is singular"),
        ],
    )
    def test_damaged_file(self, tmp_path, anatomy, name, spoil, message):
        path = tmp_path / name
        (write_nifti if ".nii" in name else write_itk)(path, anatomy(0))
        assert check_scan(str(path)) is None
        spoil(path)
        assert message in (check_scan(str(path)) or "")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda v: v[0], "is 24 x 24 voxels; 3 axes"),
            (lambda v: v[..., :1], "is 24 x 24 x 1 voxels"),
            (lambda v: np.stack([v, v], axis=-1), "holds 2 volumes"),
            (lambda v: v[:3], "is 3 x 24 x 24 voxels; 3 axes of 4 voxels"),
            (lambda v: np.where(v > v.max() - 1, np.nan, v), "NaN or infinite; store"),
            (lambda v: np.where(v > v.max() - 1, np.inf, v), "NaN or infinite; store"),
            (lambda v: np.full_like(v, 7), "is constant (every voxel is 7): it shows"),
        ],
    )
    def test_unusable_volume(self, tmp_path, anatomy, change, message):
        path = tmp_path / "a.nii.gz"
        write_nifti(path, change(anatomy(0)).astype(np.float32))
        assert message in (check_scan(str(path)) or "")

    @pytest.mark.parametrize("change", [lambda v: v[..., None], lambda v: v[..., None, None], lambda v: v[:4, :4, :4]])
    def test_odd_but_usable_volume(self, tmp_path, anatomy, preprocessing, change):
        """One volume in four dimensions, and the smallest scan allowed, are not refused and go through."""
        path = tmp_path / "a.nii.gz"
        write_nifti(path, change(anatomy(0)))
        assert check_scan(str(path)) is None
        assert preprocessing()({"image": str(path)})["image"].shape == (1, 24, 24, 24)

    @pytest.mark.parametrize("spoil", [cut, Path.unlink])
    def test_series_with_a_hole(self, tmp_path, anatomy, spoil):
        """A slice that is damaged or missing would shorten the patient unnoticed."""
        write_dicom(tmp_path, anatomy(0))
        assert check_scan(str(tmp_path)) is None
        spoil(tmp_path / "slice_7.dcm")
        assert "lacks slices" in (check_scan(str(tmp_path)) or "")
