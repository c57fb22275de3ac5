# SPDX-License-Identifier: Apache-2.0

"""With which settings of the plan results were measured: those of others are not put beside them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from scripts.data import read_json
from scripts.errors import InputError
from scripts.files import write_text

from .plan import Unit, started_from

PARTS = {"sets": "data", "arms": "arm", "measures": "measure"}
"""Parts of a plan, and the field of a unit that names one of each."""
UNITS = ("labelled", "description")
"""What chooses or describes units, and changes no number of one."""


def settings_of(plan: Mapping[str, Any], units: Iterable[Unit]) -> dict[str, dict[str, Any]]:
    """
    The plan's settings that decide the numbers of these units, in the words of JSON, and the hash of the weights that
    an arm starts from: a file may change under its name.
    """
    found: dict[str, dict[str, Any]] = {part: {} for part in PARTS}
    for unit in units:
        for part, field in PARTS.items():
            name = getattr(unit, field)
            found[part][name] = {k: v for k, v in plan[part][name].items() if k not in UNITS}
    for arm, settings in found["arms"].items():
        if weights := started_from(plan, arm):
            settings["sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    whole = {name: plan[name] for name in ("budget", "network")}
    return json.loads(json.dumps({**found, "plan": whole}))  # type: ignore[no-any-return]


def keep_settings(path: Path, plan: Mapping[str, Any], done: Iterable[Unit], units: Iterable[Unit]) -> None:
    """
    Write the settings of units down, beside those of earlier runs.

    Args:
        path: of the JSON file. Without it, results that are there already are taken for such of this plan.
        plan: see :func:`~evidence.plan.read_plan`.
        done: units measured before, of those that are wanted.
        units: all that are wanted.

    Raises:
        InputError: where some were measured before with other settings.
    """
    kept: dict[str, dict[str, Any]] = read_json(path) if path.is_file() else {}
    for part, settings in settings_of(plan, done).items():
        for name, now in settings.items():
            before = kept.get(part, {}).get(name, now)
            if before != now:
                raise InputError(
                    f"{path}: {name} was measured with {before}, the plan has {now} now: pass another --out"
                )
    wanted = settings_of(plan, units)
    text = json.dumps({part: {**kept.get(part, {}), **wanted[part]} for part in wanted}, indent=4, sort_keys=True)
    write_text(text + "\n", path)
