# SPDX-License-Identifier: Apache-2.0

"""The plan of the comparison, read from JSON, and the units of work it holds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scripts.errors import InputError

REPOSITORY = Path(__file__).resolve().parents[2]
BUNDLE = REPOSITORY / "bundle"


class Unit(NamedTuple):
    """One measurement; its fields are the first columns of the results."""

    pretrained_on: str
    arm: str
    seed: str
    data: str
    measure: str
    labelled: str


def merged(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """The nested dictionary with the overlay's values in place of its own; lists are replaced."""
    result = dict(base)
    for key, value in overlay.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else value
    return result


def read_plan(path: str | Path, quick: bool = False) -> dict[str, Any]:
    """
    Args:
        path: of the JSON file.
        quick: with its ``quick`` part laid over it: a smoke run whose numbers mean nothing.

    Raises:
        InputError: when the file cannot be read as a plan.
    """
    try:
        plan = json.loads(Path(path).read_text(encoding="utf-8"))
        return merged(plan, plan["quick"]) if quick else plan
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no plan ({type(error).__name__} {error}): see benchmarks/evidence.json") from error


def overlays_of(plan: Mapping[str, Any], arm: str) -> list[Path]:
    """The configurations of the bundle that are laid over ``train.json`` for an arm."""
    return [BUNDLE / "configs" / f"{name}.json" for name in plan["arms"][arm].get("overlays", ())]


def started_from(plan: Mapping[str, Any], arm: str) -> Path | None:
    """
    The weights of an arm that is not pre-trained here (``start``); None for other arms and random weights.

    Raises:
        InputError: where they are not there.
    """
    start = plan["arms"][arm].get("start", "random")
    path = None if start == "random" else REPOSITORY / start
    if path and not path.is_file():
        raise InputError(f"{path} does not exist: leave the arm {arm} out (--arms)")
    return path


def against(plan: dict[str, Any], reference: str | None) -> dict[str, Any]:
    """The plan with that arm as the one that the others are tested against, in every measure; None changes nothing."""
    if reference is None:
        return plan
    if reference not in plan["arms"]:
        raise InputError(f"the plan has no arms named '{reference}', only {', '.join(plan['arms'])}")
    return {**plan, "reference": reference, "references": {}}


def sources_of(plan: Mapping[str, Any]) -> dict[str, list[str]]:
    """What can be pre-trained on, and the sets it consists of: each set alone, and the mixtures."""
    mixtures = {name: list(about["zoom"]) for name, about in plan.get("mixtures", {}).items()}
    return {name: [name] for name in plan["sets"]} | mixtures


def list_units(
    plan: Mapping[str, Any],
    arms: Sequence[str] | None = None,
    pretrained_on: Sequence[str] | None = None,
    sets: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    measures: Sequence[str] | None = None,
    across: bool = False,
    labelled: Sequence[str] | None = None,
) -> list[Unit]:
    """
    Units of work, those of one network next to each other.

    Args:
        plan: see :func:`read_plan`.
        arms: names of the arms, all by default.
        pretrained_on: sets or mixtures to pre-train on, all sets by default.
        sets: sets to measure on, all by default.
        seeds: those of the plan by default.
        measures: all by default.
        across: also measure on other sets than those pre-trained on (the paper's inter-scene transfer).
        labelled: numbers of labelled subjects, all of the plan by default; measures without labels are always there.

    Raises:
        InputError: for a name that the plan does not hold.
    """
    for what, names in {"arms": arms, "sets": sets, "measures": measures}.items():
        for name in names or ():
            if name not in plan[what]:
                raise InputError(f"the plan has no {what} named '{name}', only {', '.join(plan[what])}")
    members = sources_of(plan)
    for name in pretrained_on or ():
        if name not in members:
            raise InputError(f"the plan has no sets or mixtures named '{name}', only {', '.join(members)}")
    units = []
    for source in pretrained_on or plan["sets"]:
        for seed in seeds or plan["seeds"]:
            for arm in arms or plan["arms"]:
                about = plan["arms"][arm]
                if source not in about.get("pretrained_on", [source]) or seed not in about.get("seeds", [seed]):
                    continue
                trained = about.get("start") != "random"
                for data in sets or plan["sets"]:
                    if data != source and not (trained and (across or data in members[source])):
                        continue
                    for measure in measures or plan["measures"]:
                        if measure == "classification" and not plan["sets"][data]["classification"]:
                            continue
                        for count in map(str, plan["measures"][measure].get("labelled", [""])):
                            if labelled is None or count in ("", *labelled):
                                units.append(Unit(source, arm, str(seed), data, measure, count))
    return units
