# SPDX-License-Identifier: Apache-2.0

"""Labelled cases are checked before training: named, refused or left out."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
from scripts.errors import InputError
from scripts.finetuning import images_to_predict, labelled_cases

CLASSES = [{"name": "blob", "codes": [1]}]


def relabel(cohort, subject, change, affine=None):
    """Write a subject's label map anew."""
    path = cohort / "labelsTr" / f"subject_{subject}.nii.gz"
    old = nib.load(path)
    volume = change(np.asarray(old.dataobj).copy())
    path.unlink()
    nib.save(nib.Nifti1Image(volume, old.affine if affine is None else affine), path)


def test_cases_know_their_structures(tmp_path, make_cohort):
    make_cohort(tmp_path)
    cases = labelled_cases(str(tmp_path), [*CLASSES, {"name": "absent", "codes": [7, 8]}])
    assert len(cases) == 6
    assert all(case["classes"] == [1] and case["label"].endswith(".nii.gz") for case in cases)


def strange(volume):
    volume[0, 0, 0] = 9
    return volume


@pytest.mark.parametrize(
    ("change", "affine", "message"),
    [
        (strange, None, "label values (9) that the description does not name"),
        (lambda volume: volume * 0, None, "empty label"),
        (lambda volume: volume[:-1], None, "do not lie on one grid (23x24x24 and 24x24x24 voxels)"),
        (lambda volume: volume, np.diag([1, 1, 2, 1]), "do not lie on one grid (up to"),
    ],
)
def test_a_bad_label_is_named_or_left_out(tmp_path, make_cohort, change, affine, message):
    make_cohort(tmp_path)
    relabel(tmp_path, 2, change, affine)
    with pytest.raises(InputError, match="subject_2") as error:
        labelled_cases(str(tmp_path), CLASSES)
    assert message in str(error.value)
    assert "1 of 6 cases" in str(error.value)
    assert len(labelled_cases(str(tmp_path), CLASSES, skip_bad=True)) == 5


def test_a_missing_and_a_damaged_label_are_named(tmp_path, make_cohort):
    make_cohort(tmp_path)
    (tmp_path / "labelsTr" / "subject_1.nii.gz").unlink()
    (tmp_path / "labelsTr" / "subject_3.nii.gz").write_bytes(b"no image")
    with pytest.raises(InputError) as error:
        labelled_cases(str(tmp_path), CLASSES)
    lines = str(error.value).splitlines()
    assert "2 of 6" in lines[0]
    assert "subject_1" in lines[1]
    assert "no label file" in lines[1]
    assert "subject_3" in lines[2]
    assert "cannot be read" in lines[2]


def test_ignored_codes_are_background(tmp_path, make_cohort):
    make_cohort(tmp_path)
    relabel(tmp_path, 0, strange)
    assert len(labelled_cases(str(tmp_path), CLASSES, ignored_codes=[9])) == 6


def test_images_to_predict(tmp_path, make_cohort):
    make_cohort(tmp_path)
    assert len(images_to_predict(str(tmp_path))) == 6
    one = str(tmp_path / "imagesTr" / "subject_0.nii.gz")
    assert images_to_predict("nowhere", one) == [{"image": one}]
    with pytest.raises(InputError, match="does not exist"):
        images_to_predict("nowhere", [one, "missing.nii"])
    (tmp_path / "dataset.json").write_text(json.dumps({"training": []}), encoding="utf-8")
    with pytest.raises(InputError):
        images_to_predict(str(tmp_path))
