# SPDX-License-Identifier: Apache-2.0
"""Scans of several kinds in one folder: contrasts, channels, series, CT with MR; one of them taken, or all told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError

SHOWN = 4
"""Kinds named in a line, of many."""
CT, OTHER = "CT", "no CT"
"""Kinds of scans whose names tell none, by their values, where a folder has both."""

Items = list[dict[str, Any]]


def take_kind(
    items: Items, kind: str | None, folder: Path, usual: str | None = None
) -> tuple[Items, list[tuple[str, str]]]:
    """
    The scans of one kind.

    Args:
        items: dictionaries with ``image`` and ``kind``.
        kind: the whole name of a kind or some of its words, in upper or lower case: ``T1w`` takes ``T1w acq-mprage``
            too, unless there are scans which are ``T1w`` and nothing else.
        folder: that holds them, for the message.
        usual: words of the kinds that are taken where none is asked for; None takes all.

    Returns:
        those of the kind; and the others, with the reason.

    Raises:
        InputError: where there is none.
    """
    asked = str(usual if kind is None else kind).casefold().split()
    if not items or (kind is None and usual is None):
        return items, []
    words = {item["image"]: item.get("kind", "").casefold().split() for item in items}
    taken = [item for item in items if kind is not None and words[item["image"]] == asked]
    taken = taken or [item for item in items if asked and set(asked) <= set(words[item["image"]])]
    if not taken:
        raise InputError(f"{folder} has no scan of kind {kind!r}, but {listed(items)}: pass --kind with one of them")
    left_out = []
    for item in items:
        if item not in taken:
            own = item.get("kind", "")
            left_out.append((item["image"], f"is {own or 'of no known kind'}, not {kind or usual}" + takes(own)))
    return taken, left_out


def takes(kind: str) -> str:
    """How a kind is asked for, for a message."""
    if not kind:
        return ""
    return f" (--kind {kind if kind.isalnum() else repr(kind)} takes these)"


def listed(items: Sequence[Mapping[str, Any]], examples: bool = False) -> str:
    """The kinds of scans, with their numbers, the most frequent first."""
    counts = Counter(item.get("kind", "") for item in items).most_common()
    first = {item.get("kind", ""): item["image"] for item in reversed(items)}
    shown = [f"{n} {kind or 'of no known kind'}" + f", as {first[kind]}" * examples for kind, n in counts[:SHOWN]]
    more = len(counts) - SHOWN
    return ("; " if examples else ", ").join(shown) + (f" and {more} more kinds" if more > 0 else "")


def by_values(items: Items, is_ct: Mapping[str, bool]) -> None:
    """Tell CT from other scans among those whose names do not tell their kind, where there are both."""
    if len({is_ct[item["image"]] for item in items}) == 2:
        for item in items:
            item["kind"] = item.get("kind") or (CT if is_ct[item["image"]] else OTHER)


def tell_kinds(items: Sequence[Mapping[str, Any]]) -> None:
    """Say in one line that scans are of several kinds, which are used alike."""
    kinds = list(dict.fromkeys(item.get("kind", "") for item in items))
    if len(kinds) > 1:
        named = max((kind for kind in kinds if kind), key=[item.get("kind", "") for item in items].count)
        advice = takes(named).replace("these", "one")
        print(f"kinds: {len(items)} scans of {len(kinds)} kinds are mixed: {listed(items, True)}{advice}", flush=True)
