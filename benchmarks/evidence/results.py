# SPDX-License-Identifier: Apache-2.0

"""The results: one CSV that only grows, a unit of work at a time."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from .plan import Unit

COLUMNS = (*Unit._fields, "quantity", "case", "value")
DONE = "done"
"""Quantity of the row that ends a unit."""


class Value(NamedTuple):
    """One number: which quantity, of which case (subject, pair; empty for one number of all), and how large."""

    quantity: str
    case: str
    value: float


def append(path: Path, unit: Unit, values: Iterable[Value]) -> None:
    """Add a unit's rows in one piece, on the disk before the next one starts."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if not path.exists():
        writer.writerow(COLUMNS)
    for quantity, case, value in [*values, Value(DONE, "", 1.0)]:
        writer.writerow([*unit, quantity, case, f"{value:.6g}"])
    with path.open("a", encoding="utf-8") as file:
        file.write(text.getvalue())
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> dict[Unit, list[Value]]:
    """
    The complete units; what a run that was cut off left of one does not count.
    """
    if not path.exists():
        return {}
    open_units: dict[Unit, list[Value]] = {}
    complete: dict[Unit, list[Value]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if None in row.values():
                continue
            unit = Unit(*(row[name] for name in Unit._fields))
            if row["quantity"] == DONE:
                complete[unit] = open_units.pop(unit, [])
            else:
                open_units.setdefault(unit, []).append(Value(row["quantity"], row["case"], float(row["value"])))
    return complete
