# SPDX-License-Identifier: Apache-2.0

"""Data sets are read as they are downloaded: the layouts of the committed descriptions, on look-alikes."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from child.description import structures
from lookalikes import BRAIN_CODES, write_brain, write_coronary, write_heart
from scripts.data import LoadScan, check_layout, find_scans
from scripts.errors import InputError
from scripts.finetuning import images_to_predict, labelled_cases

DESCRIPTIONS = Path(__file__).parents[3] / "tools" / "child" / "descriptions"
WRITERS = {
    "heart_ct_segmentation": write_heart,
    "coronary_ct_segmentation": write_coronary,
    "brain28_mr_segmentation": write_brain,
}
SIMPLE = {"images": "**/*_image.nii.gz", "label": ["_image.nii.gz", "_label.nii.gz"]}


def described(name):
    return json.loads((DESCRIPTIONS / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def lookalikes(tmp_path_factory):
    """Folders by name of the child, to be read only."""
    folder = tmp_path_factory.mktemp("lookalikes")
    return {name: write(folder / name) for name, write in WRITERS.items()}


@pytest.mark.parametrize(("name", "count"), zip(WRITERS, (6, 8, 8), strict=True))
def test_every_labelled_case_is_found_and_complete(lookalikes, name, count):
    """Every structure in every case, code 421 and the codes that are not among the 28 structures included."""
    description = described(name)
    classes, ignored = structures(description)
    cases = labelled_cases(str(lookalikes[name]), classes, ignored, layout=description["layout"])
    assert len(cases) == len({case["subject"] for case in cases}) == count
    assert all(case["classes"] == list(range(1, len(classes) + 1)) for case in cases)
    assert all(Path(case["label"]).is_file() and case["label"] != case["image"] for case in cases)


def test_descriptions_name_the_codes_of_the_lookalikes(lookalikes):
    assert [entry["codes"][0] for entry in structures(described("brain28_mr_segmentation"))[0]] == list(BRAIN_CODES)
    stray = lookalikes["heart_ct_segmentation"] / "ct_train" / "ct_train_1003_label.nii.gz"
    assert 421 in np.asarray(nib.load(stray).dataobj)


def test_images_without_label_by_design_are_predicted_but_not_learnt_from(lookalikes):
    layout, folder = described("heart_ct_segmentation")["layout"], str(lookalikes["heart_ct_segmentation"])
    names = [Path(item["image"]).name for item in images_to_predict(folder, layout=layout)]
    assert [name for name in names if "test" in name] == ["ct_test_2001_image.nii.gz", "ct_test_2002_image.nii.gz"]
    assert len(names) == 8
    assert not any("mr_" in name or "label" in name for name in names)
    scans = find_scans(folder, layout=layout)
    assert ["label" in scan for scan in scans] == [False] * 2 + [True] * 6
    assert all("label" in scan for scan in find_scans(folder, layout=layout, labelled=True))


def test_a_rotation_a_little_beyond_unit_length_is_read(lookalikes):
    """Left, superior, anterior, as the header says; nibabel's own tolerance refuses the file."""
    (path, *_) = sorted(lookalikes["brain28_mr_segmentation"].rglob("*_procimg.nii.gz"))
    image = LoadScan()(str(path))
    assert nib.aff2axcodes(np.asarray(image.affine)) == ("L", "S", "A")
    assert np.allclose(image.pixdim, [4, 4, 5])
    with pytest.raises(ValueError, match="w2 should be positive"):
        nib.load(path)


def test_labels_that_should_be_there_are_named(tmp_path):
    folder = write_heart(tmp_path / "data", train=3, test=1)
    lost = folder / "ct_train" / "ct_train_1002_label.nii.gz"
    lost.unlink()
    description = described("heart_ct_segmentation")
    arguments = (str(folder), *structures(description))
    with pytest.raises(InputError, match="1 of 3 cases") as error:
        labelled_cases(*arguments, layout=description["layout"])
    assert f"ct_train_1002_image.nii.gz has no label file: {lost} is missing" in str(error.value)
    assert len(labelled_cases(*arguments, layout=description["layout"], skip_bad=True)) == 2


@pytest.mark.parametrize("name", [*WRITERS, "covid_ct_classification"])
def test_another_folder_is_refused_in_one_line_that_shows_what_is_expected(tmp_path, cohort, name):
    layout = described(name)["layout"]
    with pytest.raises(InputError) as error:
        find_scans(str(cohort), layout=layout)
    message = str(error.value)
    assert "\n" not in message
    assert str(cohort) in message
    assert layout["example"] in message
    if "label" in layout:
        assert layout["example"].replace(*layout["label"]) in message
    assert '--layout "{}"' in message
    assert len(find_scans(str(cohort), layout={})) == 6


def test_test_images_alone_are_no_training_data(tmp_path):
    folder = write_heart(tmp_path, train=0)
    with pytest.raises(InputError, match="2 images, but all without label"):
        find_scans(str(folder), layout=described("heart_ct_segmentation")["layout"], labelled=True)


def test_the_folder_may_hold_links(tmp_path, lookalikes):
    """A data set is often linked to, not copied."""
    (tmp_path / "linked").symlink_to(lookalikes["heart_ct_segmentation"])
    assert len(find_scans(str(tmp_path), layout=SIMPLE)) == 9


@pytest.mark.parametrize(
    "layout",
    [
        "**/*.nii.gz",
        ["**/*.nii.gz"],
        {"label": ["a", "b"]},
        {"images": "*.nii", "labels": ["a", "b"]},
        {"images": "*.nii", "label": "_label"},
        {"images": "*.nii", "label": ["_image"]},
        {"images": "*.nii", "label": ["_image", "_image"]},
        {"images": "*.nii", "label": ["", "_label"]},
        {"images": "/data/*.nii"},
        {"images": ""},
        {"images": "*.nii", "unlabelled": 3},
    ],
)
def test_a_layout_that_is_none_is_refused(layout):
    with pytest.raises(InputError, match="layout must be such as"):
        check_layout(layout)


def test_a_label_that_cannot_be_derived_is_refused(lookalikes):
    layout = {"images": "**/*_image.nii.gz", "label": ["_scan", "_label"]}
    with pytest.raises(InputError, match="has no '_scan' to replace"):
        find_scans(str(lookalikes["heart_ct_segmentation"]), layout=layout)
