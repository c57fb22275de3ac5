# SPDX-License-Identifier: Apache-2.0
"""Cases split by subject, thinned to few labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import InputError, check_numbers


def _divided(
    strata: Mapping[str, set[str]], test_fraction: float, validation_fraction: float, folds: int, fold: int, seed: int
) -> tuple[list[str], list[str], list[str]]:
    """Subjects to train on (the first ones from every stratum, the further ones in proportion), validate and test."""
    generator = np.random.default_rng(seed)
    test: list[str] = []
    validation: list[str] = []
    rest: dict[str, list[str]] = {}
    for kind, subjects in strata.items():
        order = [sorted(subjects)[i] for i in generator.permutation(len(subjects))]
        held, share = (max(1, round(part * len(order))) if part else 0 for part in (test_fraction, validation_fraction))
        if held + share >= len(order):
            raise InputError(
                f"{len(order)} subjects{kind} are too few for training, validation and test parts: three are needed at "
                "least, labelled by hand or by make carry"
            )
        test += order[:held]
        validation += order[held : held + share]
        rest[kind] = order[held:]
    if folds:
        validation = [subject for group in rest.values() for subject in group][fold::folds]
    kept = [[subject for subject in group if subject not in validation] for group in rest.values()]
    placed = [(place / len(group), subject) for group in kept for place, subject in enumerate(group)]
    train = [subject for _, subject in sorted(placed, key=lambda item: item[0])]
    if not train or not validation:
        raise InputError(f"{len(train) + len(validation)} subjects are too few for {folds} folds")
    return train, validation, test


def split_cases(
    cases: Sequence[dict[str, Any]],
    class_names: Sequence[str],
    validation_fraction: float = 0.15,
    test_fraction: float = 0.15,
    num_labelled: int | None = None,
    label_fraction: float = 1.0,
    folds: int = 0,
    fold: int = 0,
    seed: int = 0,
    stratify: bool = False,
) -> dict[str, list[dict[str, Any]]]:
    """
    Split by subject; the same arguments give the same split, and fewer labels are a subset of more.

    The test part depends on the seed and its fraction alone, so that every fold and every number of labels is measured
    on the same subjects.

    Args:
        cases: dictionaries with ``subject`` and ``classes`` (numbers, from 1, of the structures or classes in it).
        class_names: names of the structures or classes.
        validation_fraction: share of all subjects for choosing the best model (without folds).
        test_fraction: share of all subjects never trained on, 0 for none.
        num_labelled: subjects to train on; None takes ``label_fraction`` of them.
        label_fraction: share of the training subjects to train on.
        folds: number of folds; 0 splits once.
        fold: the fold, from 0, that validates.
        seed: of the split.
        stratify: split each class by itself, for cases that show one class each; the first subjects to train on are
            one of each class, the further ones keep their proportions.

    Returns:
        ``train``, ``validation`` and ``test`` cases.

    Raises:
        InputError: for too few subjects (of a class), impossible shares, or a structure or class without example in
            the training part.
    """
    check_numbers({"validation_fraction": validation_fraction, "test_fraction": test_fraction})
    check_numbers({"label_fraction": label_fraction})
    check_numbers({"folds": folds, "fold": fold, "seed": seed}, whole=True)
    if validation_fraction + test_fraction >= 1 or not validation_fraction:
        raise InputError("validation_fraction must be above 0, and with test_fraction below 1")
    if not 0 < label_fraction <= 1:
        raise InputError(f"label_fraction must lie above 0 and not above 1, not {label_fraction}")
    if fold and not folds:
        raise InputError(
            f"fold is {fold} and folds 0, which is one split: pass --folds too, as --folds {max(5, fold + 1)}"
        )
    if folds == 1 or (folds and fold >= folds):
        raise InputError(f"fold {fold} of {folds} does not exist: folds is 0 or at least 2, fold counts from 0")
    strata: dict[str, set[str]] = {}
    for case in sorted(cases, key=lambda case: case["classes"][:1] if stratify else []):
        kind = f" of class {class_names[case['classes'][0] - 1]}" if stratify else ""
        strata.setdefault(kind, set()).add(case["subject"])
    train, validation, test = _divided(strata, test_fraction, 0 if folds else validation_fraction, folds, fold, seed)
    if num_labelled is not None:
        check_numbers({"num_labelled": num_labelled}, lowest=1, whole=True)
        if num_labelled > len(train):
            raise InputError(f"num_labelled is {num_labelled}, but only {len(train)} subjects are there to train on")
    train = train[: num_labelled or max(1, round(label_fraction * len(train)))]
    chosen = {"train": set(train), "validation": set(validation), "test": set(test)}
    parts = {name: [case for case in cases if case["subject"] in group] for name, group in chosen.items()}
    present = {number for case in parts["train"] for number in case["classes"]}
    if stratify and len({case["classes"][0] for case in parts["validation"]}) < 2:
        raise InputError(
            f"the validation part shows one class alone, an AUC needs two: pass fewer --folds than {folds}"
        )
    missing = [name for number, name in enumerate(class_names, 1) if number not in present]
    if missing:
        raise InputError(
            f"no case of the training part shows {', '.join(missing)}: train on more subjects (num_labelled, "
            "label_fraction) or pass another --seed"
        )
    print(", ".join(f"{len(part)} {name}" for name, part in parts.items()) + " cases", flush=True)
    return parts


class CaseSplit(Mapping[str, list[dict[str, Any]]]):
    """
    The parts of :func:`split_cases`, made when one of them is first asked for: a program that brings its own lists of
    scans (MONAI Label) evaluates whole configurations, and has no folder to read.

    Args:
        cases: gives the cases.
        settings: the further arguments of :func:`split_cases`.
    """

    def __init__(self, cases: Callable[[], Sequence[dict[str, Any]]], **settings: Any) -> None:
        self.cases, self.settings = cases, settings

    @cached_property
    def parts(self) -> dict[str, list[dict[str, Any]]]:
        """Cases by name of the part."""
        return split_cases(self.cases(), **self.settings)

    def __getitem__(self, part: str) -> list[dict[str, Any]]:
        return self.parts[part]

    def __iter__(self) -> Iterator[str]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)


def chosen_part(split: Mapping[str, list[dict[str, Any]]], part: str) -> list[dict[str, Any]]:
    """
    One part of :func:`split_cases`.

    Raises:
        InputError: for a part that does not exist or has no case.
    """
    if not split.get(part):
        there = ", ".join(name for name, cases in split.items() if cases)
        raise InputError(f"part '{part}' has no case: the parts with cases are {there}")
    return split[part]
