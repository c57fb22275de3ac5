# SPDX-License-Identifier: Apache-2.0
"""What the maker of child bundles reads in a data set's own description."""

from __future__ import annotations

import pytest
from child.description import modality, structures
from scripts.errors import InputError


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
