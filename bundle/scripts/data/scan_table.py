# SPDX-License-Identifier: Apache-2.0
"""The scans of a run as a table: where they lie, and what had to be decided about that."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ignite.distributed import get_rank
from nibabel.affines import voxel_sizes

from ..errors import InputError
from ..files import write_atomically
from .reading import scan_geometry
from .tables import read_own

FILE = "scans.csv"
COLUMNS = ("scan", "subject", "part", "kind", "voxels", "voxel_size_mm", "decided")
SCAN_KEYS = ("image", "moving")

Scans = Sequence[Mapping[str, Any]]


def write_scan_table(output_dir: str, scans: Scans | Mapping[str, Scans], earlier: str = "replace") -> None:
    """
    Write ``scans.csv``: a line for each scan, with its subject, part of the split, kind, size, voxel size and what had
    to be decided about where it lies.

    Args:
        output_dir: folder of the run.
        scans: dictionaries with paths ``image`` and possibly ``moving``, and possibly ``subject`` and ``kind``; checked
            before. Or these by the part that they are of (train, validation, test).
        earlier: what becomes of other scans in the table of a run before: "replace", and say so; "keep" their lines,
            where each scan has results of its own; "refuse" to go on, where the results of all stand in one file.

    Raises:
        InputError: where results of other scans would be overwritten.
    """
    parts = scans if isinstance(scans, Mapping) else {"": scans}
    rows: dict[str, list[str]] = {}
    for part in parts:
        for scan in parts[part]:
            for path in (str(scan[key]) for key in SCAN_KEYS if key in scan):
                told = [str(scan.get("subject", "")), part, str(scan.get("kind", ""))]
                row = rows.setdefault(os.path.abspath(path), [path, *told])
                row[2] = part if part in row[2] else f"{row[2]}, {part}"  # few subjects are in two
    before = _earlier_rows(Path(output_dir, FILE))
    if earlier == "replace":
        gone = sorted(before.keys() - rows.keys())
        if gone and get_rank() == 0:
            print(
                f"note: {len(gone)} scans that this run had before are not among those of now, as {gone[0]}", flush=True
            )
        before = {}
    if earlier == "refuse" and before and before.keys() != rows.keys():
        other = min(before.keys() ^ rows.keys())
        raise InputError(
            f"{output_dir} holds results of other scans, which would be overwritten ({FILE} there "
            f"{'lacks' if other in rows else 'names'} {other}): pass another --output_dir"
        )
    for path, row in rows.items():
        row += _places(row[0])
        before.pop(path, None)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerows([COLUMNS, *before.values(), *rows.values()])
    Path(output_dir).mkdir(parents=True, exist_ok=True)
    write_atomically(Path(output_dir, FILE), lambda file: file.write(text.getvalue().encode()), part=f".{os.getpid()}")


def _places(path: str) -> list[str]:
    found = scan_geometry(path)
    spacing = voxel_sizes(found.affine)[: len(found.size)]
    shapes = ("x".join(f"{value:.4g}" for value in values) for values in (found.size, spacing))
    return [*shapes, "; ".join(f"{kind}: {what}" for kind, what in found.notes.items())]


def _earlier_rows(path: Path) -> dict[str, list[str]]:
    """Lines of a table that a run before wrote, by full path of the scan."""
    rows = [[row.get(column) or "" for column in COLUMNS] for row in read_own(path, COLUMNS[0])]
    return {os.path.abspath(row[0]): row for row in rows if row[0]}
