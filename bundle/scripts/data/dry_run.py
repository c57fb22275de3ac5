# SPDX-License-Identifier: Apache-2.0
"""What a run would use, write and leave out: listed on the screen by ``--dry_run True``."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import InputError, refuse_or_leave_out
from .scan_checks import ScanCheck, inspect_scan, tell_decisions, tell_sizes


@dataclass
class Survey:
    """
    What a folder holds.

    Args:
        scans: usable ones, see :func:`~scripts.data.find_scans`.
        checks: of them, by path.
        left_out: paths, and why they are no scans or cannot be used.
    """

    scans: list[dict[str, Any]] = field(default_factory=list)
    checks: dict[str, ScanCheck] = field(default_factory=dict)
    left_out: list[tuple[str, str]] = field(default_factory=list)

    def __add__(self, other: Survey) -> Survey:
        return Survey([*self.scans, *other.scans], self.checks | other.checks, [*self.left_out, *other.left_out])

    def usable(self, paths: Sequence[str], skip_bad: bool | None = False, channels: int = 1) -> Survey:
        """
        The scans of these paths, some of which may have been named one by one: what is not known yet is checked.

        Args:
            paths: of scans.
            skip_bad: see :func:`~scripts.errors.refuse_or_leave_out`.
            channels: of each image.

        Returns:
            what can be used of them; what was left out before stays so.

        Raises:
            InputError: for scans that cannot be used.
        """
        known = {scan["image"]: scan for scan in self.scans}
        new = {path: inspect_scan(path, channels=channels) for path in dict.fromkeys(paths) if path not in self.checks}
        checks = {path: new.get(path) or self.checks[path] for path in dict.fromkeys(paths)}
        bad = {path: str(check.problem) for path, check in checks.items() if check.problem}
        refuse_or_leave_out([f"{path} {why}" for path, why in sorted(bad.items())], len(checks), "scans", skip_bad)
        checks = {path: check for path, check in checks.items() if path not in bad}
        tell_decisions({path: check for path, check in checks.items() if path in new})
        if new:
            tell_sizes(checks)
        left_out = [(path, why) for path, why in dict.fromkeys([*self.left_out, *bad.items()]) if path not in checks]
        return Survey([known.get(path, {"image": path}) for path in checks], checks, left_out)


def show_and_leave(surveys: Sequence[Survey], results: Mapping[str, Sequence[str]] | None = None) -> None:
    """
    Print the scans of a run, with subject, kind, size and voxel size, what was left out and why, and which results
    would be written; then end the program.

    Args:
        surveys: of the scans.
        results: paths of the scans that each comes from, by its name.

    Raises:
        SystemExit: with 0.
        InputError: where several processes run, of which this one alone would end.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise InputError("--dry_run True lists scans in one process: leave torchrun and multi_gpu_train.json out")
    for found in surveys:
        rows = [("scan", "subject", "kind", "voxels", "voxel size, mm", "label")]
        for scan in found.scans:
            check = found.checks[scan["image"]]
            size, spacing = ("x".join(f"{value:.4g}" for value in values) for values in (check.size, check.spacing))
            told = (scan.get(key, "") for key in ("subject", "kind"))
            rows.append((scan["image"], *told, size, spacing, scan.get("label", "")))
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for row in rows:
            print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
        subjects = {scan["subject"] for scan in found.scans if "subject" in scan}
        of = f" of {len(subjects)} subjects" if subjects else ""
        print(f"{len(found.scans)} scans{of} would be used; {len(found.left_out)} left out")
        for path, reason in found.left_out:
            print(f"  left out: {path} {reason}")
    if results is not None:
        for name, paths in results.items():
            print(f"would write {name} from {' and '.join(paths)}")
        print(f"{len(results)} results")
    sys.stdout.flush()
    raise SystemExit(0)
