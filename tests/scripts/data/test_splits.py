# SPDX-License-Identifier: Apache-2.0

"""Splits share no subject, keep their test part, and are refused where a part would be of no use."""

from __future__ import annotations

import pytest
from scripts.data import CaseSplit, chosen_part, split_cases
from scripts.errors import InputError


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
        ({"fold": 2}, "fold is 2 and folds 0, which is one split: pass --folds too, as --folds 5"),
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


def test_parts_are_made_once_when_asked_for():
    asked = []

    def cases():
        asked.append(1)
        return made_up()

    split = CaseSplit(cases, class_names=["blob"], test_fraction=0.2)
    assert not asked
    assert dict(split) == split_cases(made_up(), ["blob"], test_fraction=0.2)
    assert chosen_part(split, "test") == split["test"]
    assert len(split) == 3
    assert asked == [1]
    with pytest.raises(InputError, match="part 'tset' has no case"):
        chosen_part(split, "tset")
