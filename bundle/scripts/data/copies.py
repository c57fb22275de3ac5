# SPDX-License-Identifier: Apache-2.0
"""Copies of one scan under several names: known by their voxels, they are one subject."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .dry_run import Survey
from .scan_checks import ScanCheck


def join_copies(scans: Sequence[dict[str, Any]], checks: Mapping[str, ScanCheck]) -> None:
    """
    Make the subjects of copies one, so that no scan is matched with its copy, nor trained on while the copy is held
    back; and say so in one line.

    Args:
        scans: dictionaries with ``image`` and ``subject``, which gets that of the first copy; ``listed_as`` then keeps
            the former one, which tables know.
        checks: by path.
    """
    first: dict[str, dict[str, Any]] = {}
    same: dict[str, str] = {}
    copies = []

    def found(subject: str) -> str:
        while subject in same:
            subject = same[subject]
        return subject

    for scan in scans:
        original = first.setdefault(checks[scan["image"]].digest, scan)
        if original is not scan:
            copies.append((scan["image"], original["image"]))
            own, other = found(scan["subject"]), found(original["subject"])
            if own != other:
                same[own] = other
    if copies:
        print(
            f"copies: {len(copies)} of {len(scans)} scans have the voxels of another one, as {copies[0][0]} those of "
            f"{copies[0][1]}: they count as one subject",
            flush=True,
        )
    for scan in scans:
        subject = found(scan["subject"])
        if subject != scan["subject"]:
            scan |= {"subject": subject, "listed_as": scan["subject"]}


def without_copies(surveys: Sequence[Survey]) -> list[Survey]:
    """
    Surveys without the scans that an earlier one has too: of a folder within another, for instance. What is left out is
    said in one line a folder.
    """
    known: dict[str, str] = {}
    kept = []
    for found in surveys:
        digests = {scan["image"]: found.checks[scan["image"]].digest for scan in found.scans}
        again = {path: known[digest] for path, digest in digests.items() if digest in known}
        known |= {digest: path for path, digest in digests.items() if digest not in known}
        left_out = [(path, f"has the voxels of {other} in another folder") for path, other in again.items()]
        if left_out:
            print(f"left out {len(left_out)}, as {left_out[0][0]}, which {left_out[0][1]}", flush=True)
        scans = [scan for scan in found.scans if scan["image"] not in again]
        kept.append(Survey(scans, found.checks, [*found.left_out, *left_out]))
    return kept
