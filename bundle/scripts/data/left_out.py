# SPDX-License-Identifier: Apache-2.0
"""Files of a folder that are no scans of their own: links, names that are no text; told in one line a reason."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from .scan_checks import NO_TEXT, is_text


def without_odd_names(items: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """Items whose paths can be written into tables; and the others, shown as far as they can be."""
    odd = [item for item in items if not is_text(item["image"])]
    shown = [os.fsencode(item["image"]).decode(errors="backslashreplace") for item in odd]
    return [item for item in items if item not in odd], [(path, NO_TEXT) for path in shown]


def tell_alike(subjects: Sequence[str]) -> None:
    """Say that two subjects, which pairs may be made of, are called almost the same."""
    first: dict[str, str] = {}
    for subject in subjects:
        other = first.setdefault(subject.casefold(), subject)
        if other != subject:
            print(
                f"subjects {other} and {subject} differ in upper and lower case alone, and count as two; if they are "
                "one, name them alike",
                flush=True,
            )
            return


def without_links(items: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """Items without those that lead to the file of an earlier one, which would be another person; and those."""
    own: dict[Any, dict[str, Any]] = {}
    links = []
    for item in items:
        first = own.setdefault((os.path.realpath(item["image"]), item.get("label")), item)
        if first is not item:
            links.append((item["image"], "is listed twice, or is a link to one that is listed"))
    return list(own.values()), links


def tell_left_out(left_out: Sequence[tuple[str, str]]) -> None:
    """One line a reason, with the number of files and one of them."""
    for reason in dict.fromkeys(why for _, why in left_out):
        paths = [path for path, why in left_out if why == reason]
        print(f"left out {len(paths)}, as {paths[0]}, which {reason}", flush=True)
