# SPDX-License-Identifier: Apache-2.0
"""Scans named by a file, a folder, a pattern or a list of these."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.dry_run import Survey
from ..data.find_scans import survey
from ..data.result_names import scan_name
from ..data.scan_checks import inspect_scan, scan_exists
from ..errors import InputError

Paths = str | Sequence[str]


def look_up(
    paths: Paths,
    label_maps: bool = False,
    kind: str | None = None,
    skip_bad: bool | None = False,
    layout: Mapping[str, Any] | None = None,
) -> Survey:
    """
    The scans of a file, a folder of scans, a pattern such as ``scans/*.nii.gz``, or a list of these. What exists under
    its name is no pattern, whatever brackets are in it.

    Args:
        paths: see above.
        label_maps: whether label maps are meant, which are left out of a folder or what a pattern finds else.
        kind: of the scans in a folder, see :func:`~scripts.data.find_scans`.
        skip_bad: leave unusable scans of a folder out instead of refusing; None where there is no such setting.
        layout: of a folder, see :mod:`scripts.data.folder_layouts`.

    Returns:
        scans, those of folders with subject, kind and checks; and what was left out.

    Raises:
        InputError: where nothing is found.
    """
    options: dict[str, Any] = {"label_maps": label_maps, "kind": kind, "skip_bad": skip_bad, "layout": layout}
    if not isinstance(paths, str):
        return sum((look_up(entry, **options) for entry in paths), Survey())
    if Path(paths).is_dir():
        return survey(paths, min_subjects=1, **options)
    if scan_exists(paths) or os.path.lexists(paths):
        return Survey([{"image": paths}])
    folder = Path(paths).parent  # brackets in folders that exist are no pattern either
    while not folder.is_dir():
        folder = folder.parent
    pattern = os.path.join(glob.escape(str(folder)), os.path.relpath(paths, folder))
    found = sorted(map(os.path.normpath, glob.glob(pattern, recursive=True)))
    if not found:
        raise InputError(f"{paths} does not exist: name a scan, a folder of scans or a pattern")
    scans = [path for path in found if scan_name(path) != Path(path).name]  # no description that lies beside a scan
    if not scans:
        return look_up(found, **options)
    maps = [path for path in scans if not label_maps and inspect_scan(path, constant=True).label_map]
    if not 0 < len(maps) < len(scans):
        maps = []
    else:
        print(f"left out {len(maps)} label maps that {paths} finds, as {maps[0]} (--label_maps True takes them)")
    kept = [{"image": path} for path in scans if path not in maps]
    return Survey(kept, left_out=[(path, "is a label map or mask (--label_maps True takes it)") for path in maps])


def expand(paths: Paths, **options: Any) -> list[str]:
    """The paths that :func:`look_up` finds with these options."""
    return [scan["image"] for scan in look_up(paths, **options).scans]


def same_file(first: str, second: str) -> bool:
    """Whether two paths, however they are spelt, lead to one scan; a link leads to what it points at."""
    if os.path.exists(first) and os.path.exists(second):
        return os.path.samefile(first, second)
    return os.path.realpath(first) == os.path.realpath(second)  # series in a folder have paths that are no files
