# SPDX-License-Identifier: Apache-2.0
"""A table of matches: how far each can be trusted, and which a person should look at."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ..files import write_text
from ..losses.local_ncc import LocalNCCLoss
from ..spatial.displacement import inside_volume

TABLE = "matches.csv"
COLUMNS = ("result", "agreement", "inliers", "conditioning", "ncc", "look_at", "tre_mm")
TRUSTED = {"agreement": 0.65, "inliers": 0.8}
"""
From which on a match is not pointed out. On 3 to 5 held-back pairs each, agreement and inliers were: right pairs of
heads 0.78 and 0.96 or more, of hippocampi 0.81 and 0.97, of CT, whose fields of view differ, 0.35 and 0.85; heads
upside down at most 0.49 and 0.80, another part of the body 0.59 and 0.96, no overlap 0.59 and 0.92, noise 0.55 and
0.77. The mirror image of a head is matched as well as the head: neither tells.
"""


def measure(data: dict[str, Any]) -> dict[str, str]:
    """
    What tells whether a match can be trusted.

    Args:
        data: a batch of one pair: ``image`` ``(1, 1, D, H, W)`` and ``pred``, see
            :class:`~scripts.networks.GVSL`.

    Returns:
        ``agreement``, ``inliers`` and ``conditioning`` where the global matching gives them, the squared local ``ncc``,
        and whether one should ``look_at`` it: "yes", "no", or nothing where that is not known.
    """
    pred = data["pred"]
    row = {name: f"{float(pred[name].flatten()[0]):.4f}" for name in COLUMNS[1:4] if name in pred}
    warped, fixed = (torch.as_tensor(image).float() for image in (pred["warped"], data["image"]))
    inside = inside_volume(torch.as_tensor(pred["displacement"]).float())
    row["ncc"] = f"{float(LocalNCCLoss(7).per_image(warped, fixed.to(warped), inside)[0]):.4f}"
    if row.keys() >= TRUSTED.keys():
        row["look_at"] = "no" if all(float(row[name]) >= lowest for name, lowest in TRUSTED.items()) else "yes"
    return row


def add_row(folder: Path, result: str, row: dict[str, str]) -> None:
    """Put a match into ``matches.csv`` of a folder, in place of an earlier one of the same result."""
    put_rows(folder / TABLE, COLUMNS, result, [row])


def put_rows(
    path: Path,
    columns: Sequence[str],
    result: str,
    rows: Sequence[dict[str, str]],
    order: Callable[[dict[str, str]], Any] | None = None,
) -> None:
    """
    Put what is said of a match into a table, in place of what an earlier match of the same result left there.

    Args:
        path: of the table.
        columns: of it; "result" is the first.
        result: name of the match.
        rows: of it.
        order: what all lines are sorted by; None puts the new ones last.
    """
    kept = [old for old in read_rows(path) if old.get("result") != result]
    listed: list[dict[str, str]] = [*kept, *({"result": result, **row} for row in rows)]
    written = io.StringIO()
    writer = csv.DictWriter(written, columns, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    if order is not None:
        listed = sorted(listed, key=order)
    writer.writerows(listed)
    write_text(written.getvalue(), path)


def read_rows(path: Path) -> list[dict[str, str]]:
    """The lines of a table, none where there is no such file."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
