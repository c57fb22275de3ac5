# SPDX-License-Identifier: Apache-2.0

"""Label codes stay the whole numbers that they are, from file to file."""

from __future__ import annotations

import re

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scripts.data import LoadScand, check_case, check_label, label_type
from scripts.data.labels import LABEL_TOLERANCE, as_codes
from scripts.errors import InputError
from scripts.evaluation import MatchingQuality
from scripts.matching import WriteMatch
from support import write_nifti

LARGE = [0, 1, 255, 2**16 - 1, 2**24 + 1, 2**24 + 2, 2**31 - 1, 2**32 - 1, 2**40 + 1]


@given(
    st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=20),
    st.floats(-0.99 * LABEL_TOLERANCE, 0.99 * LABEL_TOLERANCE),
)
def test_what_rounding_did_is_undone(codes, off):
    assert as_codes(np.array(codes, np.float64) + off).tolist() == codes


@pytest.mark.parametrize("value", [0.5, 2.94, -1.2, np.nan, np.inf])
def test_what_is_between_two_labels_is_none(value):
    with pytest.raises(ValueError, match=r"which is no label.*nearest neighbours"):
        as_codes(np.array([1, value]))


@pytest.mark.parametrize(
    ("highest", "expected"), zip(LARGE[:7], ["u1", "u1", "u1", "u2", "i4", "i4", "i4"], strict=True)
)
def test_smallest_type(highest, expected):
    assert np.dtype(label_type([0, highest])) == np.dtype(expected)
    assert np.dtype(label_type(torch.tensor([-1, highest]))).itemsize == 4


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.int64, np.float64])
def test_every_type_of_file_is_read_exactly(tmp_path, dtype):
    top = 2**52 if dtype is np.float64 else np.iinfo(dtype).max
    codes = np.array([code for code in LARGE if code <= top])
    values = np.resize(codes, (6, 7, 8)).astype(dtype)
    image = nib.Nifti1Image(values, np.eye(4), dtype=dtype)
    nib.save(image, tmp_path / "label.nii")
    found = LoadScand(["label"])({"label": str(tmp_path / "label.nii")})["label"]
    assert np.array_equal(np.asarray(found, dtype=np.int64)[0], values.astype(np.int64))


def test_labels_a_little_off_are_taken_alike_everywhere(tmp_path):
    """As floating point numbers, and as integers that the header scales; halves are refused by name."""
    codes = np.resize(np.array([0, 1, 2, 3]), (8, 9, 10))
    write_nifti(tmp_path / "scan.nii", np.random.default_rng(0).random((8, 9, 10)).astype(np.float32))
    write_nifti(tmp_path / "float.nii", (codes * 1.0000153 - 2e-7).astype(np.float32))
    scaled = nib.Nifti1Image(codes.astype(np.float32), np.eye(4))
    scaled.set_data_dtype(np.int16)
    nib.save(scaled, tmp_path / "scaled.nii")
    write_nifti(tmp_path / "half.nii", codes.astype(np.float32) / 2)
    scan = str(tmp_path / "scan.nii")
    for name in ("float.nii", "scaled.nii"):
        label = str(tmp_path / name)
        check_label(scan, label, [0, 1, 2, 3])
        assert check_case({"image": scan, "label": label}, [0, 1, 2, 3]) == (None, [0, 1, 2, 3])
        assert np.array_equal(LoadScand(["label"])({"label": label})["label"][0], codes)
    half = str(tmp_path / "half.nii")
    with pytest.raises(InputError, match=r"holds 0\.5, which is no label"):
        check_label(scan, half)
    assert "holds 0.5, which is no label" in str(check_case({"image": scan, "label": half}, [0, 1])[0])
    with pytest.raises(InputError, match=r"holds 0\.5, which is no label"):
        LoadScand(["label"])({"label": half})


def test_one_hot_labels_are_refused_everywhere_and_what_is_advised_is_read(tmp_path):
    """A child took the first volume of four for the label map."""
    codes = np.resize(np.array([0, 1, 2, 3]), (8, 9, 10))
    hot = np.stack([codes == code for code in range(4)], axis=-1).astype(np.uint8)
    write_nifti(tmp_path / "scan.nii", np.random.default_rng(0).random((8, 9, 10)).astype(np.float32))
    nib.save(nib.Nifti1Image(hot, np.eye(4)), tmp_path / "label.nii")
    case = {name: str(tmp_path / f"{file}.nii") for name, file in (("image", "scan"), ("label", "label"))}
    message = r"holds 4 volumes, a label map is one: store each voxel's code \(numpy.argmax"
    assert re.search(message, str(check_case(case, [0, 1, 2, 3])[0]))
    with pytest.raises(InputError, match=message):
        check_label(**case)
    with pytest.raises(InputError, match=message):
        LoadScand(["image", "label"])(case)
    write_nifti(tmp_path / "label.nii", np.argmax(hot, axis=-1).astype(np.uint8))
    assert check_case(case, [0, 1, 2, 3]) == (None, [0, 1, 2, 3])
    assert np.array_equal(LoadScand(["image", "label"])(case)["label"][0], codes)


@pytest.mark.parametrize("code", [2**24, 2**31 - 1, 2**40])
def test_large_codes_are_measured_and_written_apart(tmp_path, code):
    """Neighbouring codes beyond what 32-bit floats tell apart: Dice, the warped label map, its probabilities."""
    values = np.zeros((8, 8, 8))
    values[2:4], values[4:6] = code, code + 1
    scan, label = str(tmp_path / "scan.nii"), str(tmp_path / "label.nii")
    paths = {"image": scan, "moving": scan, "label": label}
    write_nifti(tmp_path / "scan.nii", np.random.default_rng(0).random((8, 8, 8)).astype(np.float32))
    nib.save(nib.Nifti1Image(values.astype(np.int64), np.eye(4), dtype="int64"), tmp_path / "label.nii")
    loaded = LoadScand(list(paths))(paths)
    batch = {key: value[None] for key, value in loaded.items()}
    for value in batch.values():
        value.meta["filename_or_obj"], value.affine = [paths["image"]], torch.eye(4)[None]
    field = torch.zeros(1, 3, 8, 8, 8)
    pred = {
        "displacement": field,
        "local_displacement": field,
        "affine": torch.eye(4)[None, :3],
        "warped": batch["image"],
    }
    originals = {f"original_{key}": value for key, value in batch.items()}
    WriteMatch(str(tmp_path), ["label", "probabilities"])({**batch, **originals, "pred": pred, "result": ["pair"]})
    assert np.array_equal(np.asarray(nib.load(tmp_path / "pair" / "warped_label.nii.gz").dataobj), values)
    assert (tmp_path / "pair" / "probabilities.txt").read_text().split() == ["0", str(code), str(code + 1)]
    other = batch["label"].as_tensor().clone()
    other[other == code] = code + 1
    measured = MatchingQuality()({**batch, "pred": pred, "image_label": batch["label"], "moving_label": other})
    assert float(measured["dice_before"]) == pytest.approx((0 + 2 / 3) / 2)
