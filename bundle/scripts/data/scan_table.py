# SPDX-License-Identifier: Apache-2.0
"""The scans of a run as a table: where they lie, and what had to be decided about that."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..files import write_atomically
from .geometry import voxel_size
from .reading import scan_geometry

FILE = "scans.csv"
COLUMNS = ("scan", "subject", "voxels", "voxel_size_mm", "decided")
SCAN_KEYS = ("image", "moving")


def write_scan_table(output_dir: str, scans: Sequence[Mapping[str, Any]]) -> None:
    """
    Write ``scans.csv``: a line for each scan, with its subject, size, voxel size and what had to be decided about where
    it lies.

    Args:
        output_dir: folder of the run.
        scans: dictionaries with paths ``image`` and possibly ``moving``, and possibly ``subject``; checked before.
    """
    subjects = {scan[key]: scan.get("subject", "") for scan in scans for key in SCAN_KEYS if key in scan}
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for path, subject in subjects.items():
        found = scan_geometry(str(path))
        spacing = voxel_size(found.affine)[: len(found.size)]
        shapes = ("x".join(f"{value:.4g}" for value in values) for values in (found.size, spacing))
        table.writerow([path, subject, *shapes, "; ".join(f"{kind}: {what}" for kind, what in found.notes.items())])
    Path(output_dir).mkdir(parents=True, exist_ok=True)
    write_atomically(Path(output_dir, FILE), lambda file: file.write(text.getvalue().encode()), part=f".{os.getpid()}")
