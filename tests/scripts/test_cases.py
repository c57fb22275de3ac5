# Copyright (c) GVSL bundle contributors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
from scripts.cases import chosen_part, images_to_predict, labelled_cases, split_cases
from scripts.errors import InputError

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
        (lambda volume: volume[:-1], None, "is (24, 24, 24) but its label"),
        (lambda volume: volume, np.diag([1, 1, 2, 1]), "different places"),
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


def made_up(subjects=20, scans=2):
    """Cases of which only subject 0 shows the second structure."""
    return [
        {"image": f"{s}_{n}", "label": "", "subject": str(s), "classes": [1, 2] if s == 0 else [1]}
        for s in range(subjects)
        for n in range(scans)
    ]


def subjects_of(part):
    return {case["subject"] for case in part}


def test_parts_share_no_subject_and_keep_all_scans():
    parts = split_cases(made_up(), ["blob"])
    groups = [subjects_of(part) for part in parts.values()]
    assert [len(group) for group in groups] == [14, 3, 3]
    assert not groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2]
    assert all(len(part) == 2 * len(group) for part, group in zip(parts.values(), groups, strict=True))
    assert split_cases(made_up(), ["blob"]) == parts
    assert split_cases(made_up(), ["blob"], seed=1) != parts


def test_fewer_labels_are_a_subset_and_the_other_parts_stay():
    full = split_cases(made_up(), ["blob"])
    five = split_cases(made_up(), ["blob"], num_labelled=5)
    share = split_cases(made_up(), ["blob"], label_fraction=0.2)
    assert len(subjects_of(five["train"])) == 5
    assert subjects_of(share["train"]) < subjects_of(five["train"]) < subjects_of(full["train"])
    assert five["test"] == full["test"]
    assert five["validation"] == full["validation"]


def test_folds_validate_every_subject_once_and_keep_the_test_part():
    folds = [split_cases(made_up(), ["blob"], folds=5, fold=fold) for fold in range(5)]
    validated = [subject for fold in folds for subject in subjects_of(fold["validation"])]
    assert len(validated) == len(set(validated)) == 17
    assert all(fold["test"] == folds[0]["test"] for fold in folds)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"validation_fraction": 0}, "validation_fraction must be above 0"),
        ({"validation_fraction": 0.6, "test_fraction": 0.5}, "below 1"),
        ({"label_fraction": 0}, "label_fraction must lie above 0"),
        ({"label_fraction": 1.5}, "label_fraction must lie above 0"),
        ({"folds": 1}, "fold 0 of 1"),
        ({"folds": 3, "fold": 3}, "fold 3 of 3"),
        ({"num_labelled": 0}, "num_labelled"),
        ({"num_labelled": 15}, "only 14 subjects"),
        ({"cases": made_up(2)}, "2 subjects are too few"),
        ({"class_names": ["blob", "rare"], "num_labelled": 1, "seed": 3}, "shows rare"),
    ],
)
def test_an_impossible_split_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        split_cases(**{"cases": made_up(), "class_names": ["blob"], **arguments})


def test_a_part_is_there_and_has_cases():
    parts = split_cases(made_up(), ["blob"], test_fraction=0)
    assert chosen_part(parts, "train") == parts["train"]
    for part in ("test", "tset"):
        with pytest.raises(InputError, match=f"part '{part}' has no case: the parts with cases are train, validation"):
            chosen_part(parts, part)


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
