# SPDX-License-Identifier: Apache-2.0

"""The numbers of a comparison: one table, one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

Row = dict[str, Any]
"""One match by one method: ``method``, ``fixed``, ``moving`` and the measures; those that are not known are NaN."""

MARKERS = "osD^vP*X<>"
COLUMNS = {
    "dice": ("Dice", ".3f"),
    "dice_5th": ("5th percentile", ".3f"),
    "dice_nearest": ("by nearest neighbour", ".3f"),
    "hd95": ("HD95, mm", ".2f"),
    "folded": ("folded, %", ".3f"),
    "log_jacobian_std": ("SD of log Jacobian", ".3f"),
    "inverse_consistency": ("there and back, mm", ".2f"),
    "cpu_seconds": ("CPU s", ".2f"),
    "voxels_per_second": ("voxels / s", ".0f"),
    "failed": ("failed", ".0f"),
}


def rounded(rows: Sequence[Mapping[str, Any]], digits: int) -> list[Row]:
    """The same, numbers with so many significant digits."""
    return [{k: f"{v:.{digits}g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows]


def summarise(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """
    Args:
        rows: of all matches.

    Returns:
        by method the means of the measures, ``dice_5th``, ``matches`` and how many ``failed``, whose Dice counts as 0.
    """
    found: dict[str, dict[str, float]] = {}
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        dice = np.array([row["dice"] for row in own])
        measured = {name: [row[name] for row in own if not np.isnan(row[name])] for name in own[0] if name in COLUMNS}
        found[method] = {name: float(np.mean(values)) if values else float("nan") for name, values in measured.items()}
        seconds = sum(row["cpu_seconds"] for row in own)
        found[method] |= {
            "dice_5th": float(np.percentile(dice, 5)),
            "voxels_per_second": sum(row["voxels"] for row in own) / seconds if method != "before" else np.nan,
            "failed": float(sum(row["failed"] for row in own)),
            "matches": len(own),
        }
    return found


def markdown(found: Mapping[str, Mapping[str, float]]) -> str:
    """The table; a column in which nothing is known, or no match failed, is left out."""
    shown = [
        name
        for name in COLUMNS
        if any(not np.isnan(row.get(name, np.nan)) for row in found.values())
        and (name != "failed" or any(row[name] for row in found.values()))
    ]
    lines = [f"| | {' | '.join(COLUMNS[name][0] for name in shown)} |", f"|---|{'---|' * len(shown)}"]
    for method, row in found.items():
        cells = ["" if np.isnan(row.get(name, np.nan)) else format(row[name], COLUMNS[name][1]) for name in shown]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def title_of(about: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """What a comparison is of, in a line."""
    matches = len(rows) // len({row["method"] for row in rows})
    known = {"part": "subjects: {}", "structures": "{} structures"}
    said = [text.format(about[key]) for key, text in known.items() if key in about]
    if seen := about.get("scans", {}).get("trained_on"):
        said.append(f"{seen} of {about['scans']['all']} scans were trained on, without labels")
    return ", ".join([f"{about['data']}: {matches} matches", *said])


def figure(rows: Sequence[Row], title: str) -> Figure:
    """Each method's Dice, a point a match, and beside it Dice against CPU seconds."""
    found = summarise(rows)
    picture = Figure(figsize=(11, 0.45 * len(found) + 2.2), layout="constrained")
    left, right = picture.subplots(1, 2)
    for place, method in enumerate(found):
        dice = [row["dice"] for row in rows if row["method"] == method]
        look = {"color": colormaps["tab10"](place % 10), "marker": MARKERS[place % len(MARKERS)], "linestyle": ""}
        left.boxplot(dice, positions=[place], vert=False, widths=0.6, showfliers=False, whis=(5, 95))
        left.plot(dice, place + np.linspace(-0.2, 0.2, len(dice)), markersize=4, alpha=0.7, **look)
        if method != "before":
            right.plot(found[method]["cpu_seconds"], found[method]["dice"], markersize=7, label=method, **look)
    left.set_yticks(range(len(found)), list(found))
    left.invert_yaxis()
    left.set_xlabel(
        "Dice of carried labels, in the scans' own grids (box: quartiles, whiskers: 5th and 95th percentile)",
        fontsize=8,
    )
    right.set_xscale("log")
    right.margins(0.2, 0.1)
    right.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    right.xaxis.set_major_formatter("{x:g}")
    right.xaxis.set_minor_formatter(NullFormatter())
    right.set_xlabel("CPU seconds a match", fontsize=8)
    right.set_ylabel("mean Dice", fontsize=8)
    right.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    picture.suptitle(title, fontsize=10)
    return picture
