# SPDX-License-Identifier: Apache-2.0
"""Tables of the structures: best first, together where the data set says so, the rest folded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..evaluation import Evaluation
from ..summary import mean_measures
from .html import change, folded, table

MOST_ROWS = 20
"""Of a table that is open."""

HEAD = ("structure", "Dice", "HD95, mm")


def _sorted(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(rows, key=lambda row: row.get("dice_after", -1.0), reverse=True)


def _table(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    lines = [[row["structure"], change(row, "dice"), change(row, "hd95")] for row in rows]
    return table(HEAD, lines, name)


def _with_the_rest_folded(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    ordered = _sorted(rows)
    if len(ordered) <= MOST_ROWS:
        return _table(ordered, name)
    rest = ordered[MOST_ROWS:]
    return _table(ordered[:MOST_ROWS], name) + folded(f"{len(rest)} more", _table(rest, f"{name}, continued"))


def structure_tables(rows: Sequence[Mapping[str, Any]]) -> str:
    """
    Args:
        rows: means of each structure, with its ``family``.

    Returns:
        HTML: one table of the structures, sorted by Dice after the match; where the data set groups them one of the
        groups' means, and the structures of each behind a click. Beyond twenty rows the rest is folded.
    """
    if not rows:
        return ""
    families: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        families.setdefault(row.get("family", ""), []).append(row)
    if set(families) == {""}:
        return f"<h3>By structure</h3>{_with_the_rest_folded(rows, 'Structures')}"
    named = {name or "others": members for name, members in families.items()}
    means = _sorted(
        [
            {"structure": (name, _count(members)), **mean_measures(members, Evaluation.structure_measures)}
            for name, members in named.items()
        ]
    )
    order = [row["structure"][0] for row in means]
    inside = "".join(
        folded(f"{name}: {_count(named[name])}", _with_the_rest_folded(named[name], name)) for name in order
    )
    text = "Groups as the data set's description makes them; each value is the mean of the group's structures."
    return f'<h3>By structure</h3><p class="quiet">{text}</p>{_with_the_rest_folded(means, "Groups")}{inside}'


def _count(members: Sequence[Any]) -> str:
    return f"{len(members)} structure{'s' if len(members) != 1 else ''}"
