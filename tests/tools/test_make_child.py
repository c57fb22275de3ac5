# SPDX-License-Identifier: Apache-2.0
"""What the maker of child bundles reads in a data set's own description."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from child.choices import choose
from child.description import modality, patient_classes, structures
from scripts.errors import InputError
from support import write_nifti


@pytest.mark.parametrize(
    ("named", "kind"),
    [
        *(
            (word, "MR")
            for word in ("MRI", "MR", "structural MRI", "functional MRI", "fMRI", "T1", "T1w", "t2w", "FLAIR")
        ),
        *((word, "MR") for word in ("T1-weighted", "T1_MRI", "3T MRI", "T1Gd", "PD-weighted", "Magnetic resonance")),
        *(
            (word, "CT")
            for word in ("CT", "ct", "CTA", "chest CT", "CBCT", "contrast-enhanced CT", "Computed Tomography")
        ),
    ],
)
def test_the_modality_is_read_by_words(named: str, kind: str) -> None:
    assert modality({"modality": {"0": named}}) == kind


@pytest.mark.parametrize("named", ["US", "structural", "SPECT", "PET", "CT or MRI", "actinic", ""])
def test_a_modality_that_is_none_or_two_is_refused(named: str) -> None:
    with pytest.raises(InputError, match="give it as CT or MRI"):
        modality({"modality": {"0": named}})


@pytest.mark.parametrize(
    ("channels", "message"),
    [
        (None, "needs"),
        ({}, "needs"),
        ("MRI", "needs"),
        ({"0": "MRI", "1": "CT"}, r"channels of CT and of MR \(MRI, CT\)"),
        ({"0": "MRI", "1": "PET"}, "give it as CT or MRI"),
    ],
)
@pytest.mark.parametrize("key", ["modality", "channel_names"])
def test_channels_of_one_modality_are_needed(key: str, channels: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        modality({key: channels})


def test_several_channels_of_one_modality() -> None:
    assert modality({"modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}}) == "MR"
    assert modality({"channel_names": {"0": "noncontrast CT", "1": "CTA"}}) == "CT"


def test_a_description_of_nnunet() -> None:
    """Labels by name; a code of several regions is of the smallest; parts that nobody labelled are no background."""
    description = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "all": [1, 2, 3], "core": [2, 3]}}
    assert modality(description) == "CT"
    assert structures(description) == ([{"name": "all", "codes": [1]}, {"name": "core", "codes": [2, 3]}], [])
    with pytest.raises(InputError, match='label "ignore"'):
        structures({**description, "labels": {"background": 0, "a": 1, "ignore": 2}})


def test_patients_without_a_class(tmp_path: Path) -> None:
    """As BIDS, R and pandas write it; before, "NA" and "nan" were classes. Where a description names them, they are."""
    rows = "".join(f"{number},{value}\n" for number, value in enumerate(["x", "", "n/a", "NA", "y", "NaN", "nan"]))
    (tmp_path / "patients.csv").write_text("id,ill\n" + rows)
    classes = [{"name": "x", "values": ["x"]}, {"name": "y", "values": ["y"]}]
    assert patient_classes({}, TABLE, tmp_path) == (TABLE, classes)
    classes = [{"name": "known", "values": ["x", "y"]}, {"name": "unknown", "values": ["NA"]}]
    assert patient_classes({"classes": classes}, TABLE, tmp_path) == (TABLE, classes)


DESCRIPTION = {"modality": {"0": "T1", "1": "T2"}, "labels": {"0": "background", "1": "a", "2": "b"}}
TABLE = {"file": "patients.csv", "id": "id", "target": "ill"}


def described(folder: Path, channels: int, **changes: Any) -> Path:
    """A data set of three cases, whose images have a file a channel."""
    training = []
    for name in "abc":
        rng = np.random.default_rng(ord(name))
        for channel in range(channels):
            ending = f"_{channel:04d}" if channels > 1 else ""
            write_nifti(folder / "images" / f"{name}{ending}.nii.gz", rng.random((8, 8, 8)).astype(np.float32))
        write_nifti(folder / "labels" / f"{name}.nii.gz", np.ones((8, 8, 8), np.uint8))
        training.append({"image": f"images/{name}.nii.gz", "label": f"labels/{name}.nii.gz"})
    (folder / "patients.csv").write_text("id,ill\na,0\nb,1\nc,1\n")
    (folder / "dataset.json").write_text(json.dumps({**DESCRIPTION, "training": training, **changes}))
    return folder


NNUNET = {"background": 0, "a": 1, "ignore": 2}
REMEDIES: dict[str, tuple[str, int, dict[str, Any], int, dict[str, Any]]] = {
    "a classification reads one; make it from a folder with one of them, whose dataset.json names that": (
        "ill_mr_classification", 2, {"table": TABLE}, 1, {"table": TABLE, "modality": {"0": "T1"}}),
    "make the child from channels of one of them": (
        "liver_mr_segmentation", 2, {"modality": {"0": "T1", "1": "CT"}}, 1, {"modality": {"0": "T1"}}),
    "give it as CT or MRI": (
        "liver_ct_segmentation", 1, {"modality": {"0": "spiral"}}, 1, {"modality": {"0": "spiral CT"}}),
    "make it from cases that are labelled whole": (
        "liver_mr_segmentation", 1, {"modality": {"0": "T1"}, "labels": NNUNET}, 1,
        {"modality": {"0": "T1"}, "labels": {"background": 0, "a": 1}}),
    'or {"0": "FLAIR", "1": "T1w"} for images of several channels': (
        "liver_mr_segmentation", 2, {"modality": None}, 2, {"modality": {"0": "FLAIR", "1": "T1w"}}),
    "needs a table of the patients": (
        "ill_mr_classification", 1, {"modality": {"0": "MRI"}}, 1, {"modality": {"0": "MRI"}, "table": TABLE}),
}  # fmt: skip


@pytest.mark.parametrize("message", REMEDIES)
def test_what_is_advised_makes_a_child(message: str, tmp_path: Path) -> None:
    name, channels, content, right_channels, right = REMEDIES[message]
    with pytest.raises(InputError, match=re.escape(message)):
        choose(described(tmp_path / "bad", channels, **content), name, {})
    chosen = choose(described(tmp_path / "mended", right_channels, **right), name, {})
    assert chosen.settings["classes"]
