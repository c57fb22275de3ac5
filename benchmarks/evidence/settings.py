# SPDX-License-Identifier: Apache-2.0

"""With which settings of the plan results were measured: those of others are not put beside them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from scripts.data import fingerprint, read_json
from scripts.errors import InputError
from scripts.files import write_text

from .plan import Unit, started_from

PARTS = {"sets": "data", "arms": "arm", "measures": "measure"}
"""Parts of a plan, and the field of a unit that names one of each."""
UNITS = ("labelled", "description")
"""What chooses or describes units, and changes no number of one."""


def digest(folder: Path, scans: Iterable[Mapping[str, Any]]) -> str:
    """
    Of a set's ``dataset.json`` and of its scans and label maps, by name and by fingerprint.

    Args:
        folder: of the set.
        scans: dictionaries with ``image`` and maybe ``label``, as ``find_scans`` finds them in any layout.
    """
    found = {str(scan[key]) for scan in scans for key in ("image", "label") if key in scan}
    files = [str(folder / "dataset.json"), *sorted(found)]
    lines = (f"{os.path.relpath(file, folder)} {fingerprint(file)}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def settings_of(
    plan: Mapping[str, Any], units: Iterable[Unit], digest_of: Callable[[str], str]
) -> dict[str, dict[str, Any]]:
    """
    The plan's settings that decide the numbers of these units, in the words of JSON, and the digests of the weights
    that an arm starts from and of the sets: files may change under their names.
    """
    found: dict[str, dict[str, Any]] = {part: {} for part in PARTS}
    for unit in units:
        for part, field in PARTS.items():
            name = getattr(unit, field)
            found[part][name] = {k: v for k, v in plan[part][name].items() if k not in UNITS}
    for arm, settings in found["arms"].items():
        if weights := started_from(plan, arm):
            settings["sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    for name, settings in found["sets"].items():
        settings["files"] = digest_of(name)
    whole = {name: plan[name] for name in ("budget", "network")}
    return json.loads(json.dumps({**found, "plan": whole}))  # type: ignore[no-any-return]


def keep_settings(
    path: Path,
    plan: Mapping[str, Any],
    done: Iterable[Unit],
    units: Iterable[Unit],
    digest_of: Callable[[str], str],
) -> None:
    """
    Write the settings of units down, beside those of earlier runs.

    Args:
        path: of the JSON file. Without it, results that are there already are taken for such of this plan.
        plan: see :func:`~evidence.plan.read_plan`.
        done: units measured before, of those that are wanted.
        units: all that are wanted.
        digest_of: the digest of a set by its name.

    Raises:
        InputError: where some were measured before with other settings.
    """
    kept: dict[str, dict[str, Any]] = read_json(path) if path.is_file() else {}
    for part, settings in settings_of(plan, done, digest_of).items():
        for name, now in settings.items():
            before = kept.get(part, {}).get(name, now)
            names = sorted(key for key in {**before, **now} if before.get(key) != now.get(key))
            if names:
                was, has = ({key: of[key] for key in names if key in of} for of in (before, now))
                raise InputError(f"{path}: {name} was measured with {was}, it has {has} now: pass another --out")
    wanted = settings_of(plan, units, digest_of)
    text = json.dumps({part: {**kept.get(part, {}), **wanted[part]} for part in wanted}, indent=4, sort_keys=True)
    write_text(text + "\n", path)
