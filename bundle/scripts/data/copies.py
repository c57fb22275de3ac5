# SPDX-License-Identifier: Apache-2.0
"""Copies of one scan under several names: known by their voxels, they are one subject."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .dry_run import Survey
from .scan_checks import ScanCheck


def join_copies(scans: Sequence[dict[str, Any]], checks: Mapping[str, ScanCheck], fewest: int = 1) -> None:
    """
    Make the subjects of copies one, so that no scan is matched with its copy, nor trained on while the copy is held
    back; and say so in one line. Where fewer subjects than are needed would be left, they stay as they are, which is
    said too.

    Args:
        scans: dictionaries with ``image`` and ``subject``, which gets that of the first copy; ``listed_as`` then keeps
            the former one, which tables know.
        checks: by path.
        fewest: subjects that are needed.
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
    enough = len({found(scan["subject"]) for scan in scans}) >= fewest
    if copies:
        counted = "they count as one subject" if enough else f"each keeps its subject, or less than {fewest} are left"
        print(
            f"copies: {len(copies)} of {len(scans)} scans have the voxels of another one, as {copies[0][0]} those of "
            f"{copies[0][1]}: {counted}",
            flush=True,
        )
    for scan in scans if enough else ():
        subject = found(scan["subject"])
        if subject != scan["subject"]:
            scan |= {"subject": subject, "listed_as": scan["subject"]}


def without_copies(surveys: Sequence[Survey], fewest: int = 2) -> list[Survey]:
    """
    Surveys without the scans that an earlier one has too: of a folder within another, for instance. What is left out is
    said in one line a folder.

    Args:
        surveys: one a folder.
        fewest: subjects that a folder needs; one that would be left with fewer stays as it is, which is said too.
    """
    known: dict[str, str] = {}
    kept = []
    for found in surveys:
        digests = {scan["image"]: found.checks[scan["image"]].digest for scan in found.scans}
        again = {path: known[digest] for path, digest in digests.items() if digest in known}
        known |= {digest: path for path, digest in digests.items() if digest not in known}
        left_out = [(path, f"has the voxels of {other} in another folder") for path, other in again.items()]
        scans = [scan for scan in found.scans if scan["image"] not in again]
        if left_out and len({scan["subject"] for scan in scans}) < fewest:
            what = f"copies: {len(left_out)}, as {left_out[0][0]}, which {left_out[0][1]}"
            print(f"{what}; they are kept, or less than {fewest} subjects of this folder are left", flush=True)
            kept.append(found)
            continue
        if left_out:
            print(f"left out {len(left_out)}, as {left_out[0][0]}, which {left_out[0][1]}", flush=True)
        kept.append(Survey(scans, found.checks, [*found.left_out, *left_out]))
    return kept
