# SPDX-License-Identifier: Apache-2.0

"""Scans are read without noise, and judged before training."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.transforms import LoadImage
from scripts.data import check_scan
from support import cut, write_dicom, write_itk, write_nifti


class TestReaders:
    @staticmethod
    def told(caplog, **arguments) -> str:
        """What is warned of while readers are made."""
        with warnings.catch_warnings(record=True) as caught, caplog.at_level(logging.DEBUG):
            warnings.simplefilter("always")
            LoadImage(**arguments)
        return "\n".join([*(str(warning.message) for warning in caught), caplog.text])

    def test_making_them_is_silent(self, caplog):
        assert self.told(caplog) == ""

    def test_one_that_is_asked_for_warns(self, caplog):
        """Only what nobody asked for is left out; nothing is filtered."""
        shown = self.told(caplog, reader="NvImgCodecPydicomReader")
        assert "nvImageCodec is not available" in shown
        assert "Falling back to default pydicom decoders" in shown


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
            (lambda v: v[..., None, None], "is 24 x 24 x 24 x 1 voxels"),
            (lambda v: v[:3], "is 3 x 24 x 24 voxels; 3 axes of 4 voxels"),
            (lambda v: np.where(v > v.max() - 1, np.nan, v), "NaN or infinite; replace"),
            (lambda v: np.where(v > v.max() - 1, np.inf, v), "NaN or infinite; replace"),
            (lambda v: np.full_like(v, 7), "is constant (every voxel is 7); remove"),
        ],
    )
    def test_unusable_volume(self, tmp_path, anatomy, change, message):
        path = tmp_path / "a.nii.gz"
        write_nifti(path, change(anatomy(0)).astype(np.float32))
        assert message in (check_scan(str(path)) or "")

    @pytest.mark.parametrize("change", [lambda v: v[..., None], lambda v: v[:4, :4, :4]])
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
