# SPDX-License-Identifier: Apache-2.0

"""What a message advises to do with a data set, its description, its weights or its results helps."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripts.data import find_scans, split_cases, trained_on
from scripts.data.dataset_json import label_names
from scripts.errors import InputError
from scripts.matching import list_pairs, list_propagation
from support import write_nifti

NAMES = "abcd"
LABELS = {"0": "background", "1": "liver"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Scans with label maps, without a description."""
    for name in NAMES:
        volume = np.random.default_rng(ord(name)).random((8, 9, 7)).astype(np.float32)
        write_nifti(tmp_path / "data" / "imagesTr" / f"{name}.nii.gz", volume)
        write_nifti(tmp_path / "data" / "labelsTr" / f"{name}.nii.gz", (volume > 0.5).astype(np.uint8))
    return tmp_path / "data"


def describe(folder: Path, names: str = NAMES, **content: Any) -> None:
    training = [{"image": f"imagesTr/{name}.nii.gz", "label": f"labelsTr/{name}.nii.gz"} for name in names]
    (folder / "dataset.json").write_text(json.dumps({"labels": LABELS, "training": training, **content}))


def refused(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


def test_a_description_that_lacks_its_list(folder):
    describe(folder, training=None)
    refused(lambda: find_scans(str(folder)), "add what is missing.*or pass --layout .{.images.: .imagesTr/")
    assert len(find_scans(str(folder), layout={"images": "imagesTr/*.nii.gz"})) == 4
    describe(folder)
    assert len(find_scans(str(folder))) == 4


def test_a_description_that_is_no_json(folder):
    describe(folder)
    text = (folder / "dataset.json").read_text()
    (folder / "dataset.json").write_text(text.replace("liver", "Läsion"), encoding="latin-1")
    refused(lambda: find_scans(str(folder)), "cannot be read as JSON .*correct it there")
    (folder / "dataset.json").write_text(text.replace("liver", "Läsion"), encoding="utf-8")
    assert len(find_scans(str(folder))) == 4


def test_entries_without_value_are_none(folder):
    """Before, a subject null was one person of the name None, and a label null a file None that was missing."""
    blank = dict(zip(NAMES, (None, "", " ", float("nan")), strict=True))
    training = [{"image": f"imagesTr/{name}.nii.gz", "label": None, "subject": blank[name]} for name in NAMES]
    describe(folder, training=training)
    scans = find_scans(str(folder))
    assert len({scan["subject"] for scan in scans}) == 4
    assert not any("label" in scan or "missing_label" in scan for scan in scans)


@pytest.mark.parametrize("key", ["patient", "subject"])
@pytest.mark.parametrize("blank", [None, "", " "])
def test_a_column_of_subjects_that_is_not_filled_in(folder, key, blank):
    """Before, all scans with nothing there were one person."""
    training = [{"image": f"imagesTr/{name}.nii.gz", key: name} for name in NAMES]
    for name in training[1:3]:
        name[key] = blank
    describe(folder, training=training)
    message = f"{training[1]['image']}: its column '{key}' of dataset.json is empty: fill it in, or take another"
    refused(lambda: find_scans(str(folder), subject_key=key), message)
    assert len({scan["subject"] for scan in find_scans(str(folder), subject_key=r"(\w)\.nii")}) == 4
    training[1][key], training[2][key] = 0, NAMES[0]
    describe(folder, training=training)
    assert [scan["subject"] for scan in find_scans(str(folder), subject_key=key)] == [NAMES[0], "0", *NAMES[::3]]


@pytest.mark.parametrize(("written", "stored"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_stored_in_another_way(folder, written, stored):
    """As macOS and others do; before, the message said that a file of that very name does not exist."""
    name, own = (unicodedata.normalize(form, "Müller") for form in (written, stored))
    for part in ("imagesTr", "labelsTr"):
        (folder / part / "a.nii.gz").rename(folder / part / f"{own}.nii.gz")
    training = [{"image": f"imagesTr/{n}.nii.gz", "label": f"labelsTr/{n}.nii.gz"} for n in (name, "b")]
    describe(folder, training=training)
    assert [("label" in scan, "missing_label" in scan) for scan in find_scans(str(folder))] == [(True, False)] * 2
    entries = {
        "image": "imagesTr/b.nii.gz",
        "moving": f"imagesTr/{name}.nii.gz",
        "moving_label": f"labelsTr/{name}.nii.gz",
    }
    (folder / "pairs.json").write_text(json.dumps([entries]))
    assert len(list_pairs(pairs=str(folder / "pairs.json"))) == 1


@pytest.mark.parametrize(
    ("labels", "message", "mended"),
    [
        ({"0": "background", "1": "x", "2": "x"}, "two labels 'x': give each a name", {**LABELS, "2": "x"}),
        ({"background": 1, "x": 0}, "names the label 1 'background', which is 0: correct", {"background": 0, "x": 1}),
        ({"liver": "1"}, r'needs "labels" such as .* or \{"background": 0', {"background": 0, "liver": 1}),
    ],
)
def test_labels_that_mean_two_things(labels, message, mended):
    refused(lambda: label_names({"labels": labels}), message)
    assert 1 in label_names({"labels": mended})


def test_layouts(folder):
    layout = {"images": "imagesTr/*.nii.gz", "label": ["imagesTs", "labelsTr"]}
    refused(lambda: find_scans(str(folder), layout=layout), "has no 'imagesTs' to replace.*correct the layout")
    scans = find_scans(str(folder), layout={**layout, "label": ["imagesTr", "labelsTr"]})
    assert all(Path(scan["label"]).is_file() for scan in scans)
    wrong = {"images": "*/*_image.nii.gz"}
    refused(
        lambda: find_scans(str(folder), layout=wrong), r'another order pass --layout "\{\}", which takes every scan'
    )
    assert len(find_scans(str(folder), layout={})) == 4


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_corrected_label_maps(folder, tmp_path, ending):
    """Under the names of what they correct, each once."""
    describe(folder)
    out, label = tmp_path / "out", np.ones((8, 9, 7), np.uint8)
    given = (str(folder), str(folder / "imagesTr/a.nii.gz"), str(folder / "labelsTr/a.nii.gz"), str(out))
    write_nifti(out / "corrected" / f"b_mine{ending}", label)
    with pytest.raises(InputError, match=r"save it as a label map under the name of .*, such as (.*)\.nii\.gz"):
        list_propagation(*given)
    (out / "corrected" / f"b_mine{ending}").rename(out / "corrected" / f"b{ending}")
    write_nifti(out / "corrected" / "b.nrrd.nii.gz", label)
    (out / "corrected" / "b.nrrd.nii.gz").rename(out / "corrected" / ("b.nii" if ending == ".nii.gz" else "b.nii.gz"))
    refused(lambda: list_propagation(*given), "both correct one label map: move one elsewhere")
    (out / "corrected" / ("b.nii" if ending == ".nii.gz" else "b.nii.gz")).rename(tmp_path / "elsewhere.nii")
    assert {pair["moving"][-8:] for pair in list_propagation(*given)} == {"a.nii.gz", "b.nii.gz"}


def test_a_record_of_trained_scans(tmp_path):
    """What the training wrote is brought back."""
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps({"trained_on": ["ab"]}))
    kept = settings.read_text()
    for spoilt in (kept[:-5], json.dumps({"trained_on": "ab"})):
        settings.write_text(spoilt)
        refused(lambda: trained_on(str(tmp_path / "model.pt")), "bring back what it wrote")
    settings.write_text(kept)
    assert trained_on(str(tmp_path / "model.pt")) == ["ab"]


CASES = [{"subject": str(n), "classes": [1 + (n % 5 == 0)]} for n in range(20)]
PARTS = {"cases": CASES, "class_names": ["often", "rare"], "test_fraction": 0.1, "validation_fraction": 0.1}


@pytest.mark.parametrize(
    ("given", "message", "mended"),
    [
        ({"num_labelled": 1}, "train on more subjects .num_labelled", {"num_labelled": 16}),
        ({"num_labelled": 1}, "or pass another --seed", {"num_labelled": 4, "seed": 2}),
        ({"label_fraction": 0.05}, "label_fraction", {"label_fraction": 1.0}),
        ({"folds": 5, "fold": 5}, "fold counts from 0", {"folds": 5, "fold": 4}),
        ({"num_labelled": 99}, "only 16 subjects are there", {"num_labelled": 16}),
        ({"folds": 40, "fold": 39}, "too few for 40 folds|one class alone", {"folds": 4, "fold": 3}),
    ],
)
def test_splits(given, message, mended):
    refused(lambda: split_cases(**{**PARTS, **given}), message)
    assert all(split_cases(**{**PARTS, **mended}).values())
