# SPDX-License-Identifier: Apache-2.0
"""Scans named by a file, a folder, a pattern or a list of these."""

from __future__ import annotations

import glob
import itertools
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.dry_run import Survey
from ..data.find_scans import survey
from ..data.result_names import folded, result_names, scan_name
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


def in_order(scans: Sequence[str], files: Sequence[str], what: str) -> list[str]:
    """
    Files of scans, one each, in the scans' order: by their names where these tell, else as they are given. The patterns
    ``*.nii.gz`` and ``*_seg.nii.gz`` sort ``scan_1`` before ``scan_10``, and ``scan_10_seg`` before ``scan_1_seg``.

    Args:
        scans: paths.
        files: paths, as many.
        what: they are, in the plural.

    Returns:
        the files; a line is printed where their order changes.

    Raises:
        InputError: for another number of files, or one with the name of another scan than the one at its place, where
            names do not tell the whole order.
    """
    if len(files) != len(scans):
        raise InputError(f"{len(scans)} scans have {len(files)} {what}: give one each, in the same order")
    names, texts = ([folded(name) for name in result_names(paths).values()] for paths in (scans, files))
    if len(names) < 2 or len(texts) < len(files):
        return list(files)
    fitting = [_same_words(text, names) for text in texts]
    own, others = _told_apart(names), _told_apart(texts)
    if sorted(own) == sorted(others):  # sub-01_T1w, sub-02_T1w and sub-02_dseg, sub-01_dseg
        fitting = [[own.index(part)] for part in others]
    if sorted(map(tuple, fitting)) == [(number,) for number in range(len(names))]:
        ordered = [files[fitting.index([number])] for number in range(len(names))]
        moved = next((number for number, file in enumerate(ordered) if file != files[number]), None)
        if moved is not None:
            print(f"{what} go with the scans of their names, as {ordered[moved]} with {scans[moved]}", flush=True)
        return ordered
    for number, found in enumerate(fitting):
        if found and number not in found:
            raise InputError(
                f"{files[number]} would go with {scans[number]} and has the name of {scans[found[0]]}: name the "
                f"{what} one by one as a list, in the order of the scans"
            )
    return list(files)


def _common(names: Sequence[str]) -> str:
    """The letters with which all names begin."""
    alike = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    return "".join(letters[0] for letters in alike)


def _told_apart(names: Sequence[str]) -> list[str]:
    """What is left of each name without the beginning and the end that all have; zeros before numbers do not count."""
    plain = [re.sub(r"\d+", lambda digits: str(int(digits[0])), name) for name in names]
    begin = re.sub(r"\d+$", "", _common(plain))  # numbers stay whole
    rest = [name[len(begin) :] for name in plain]
    end = re.sub(r"\d+$", "", _common([part[::-1] for part in rest]))
    return [part[: len(part) - len(end)] for part in rest]


def _same_words(text: str, names: Sequence[str]) -> list[int]:
    """Which names are in a text as whole words, the longest ones alone; else, which ones the text is in."""
    inside = [
        number for number, name in enumerate(names) if re.search(rf"(?<![^\W_]){re.escape(name)}(?![^\W_])", text)
    ]
    longest = max((len(names[number]) for number in inside), default=0)
    around = [n for n, name in enumerate(names) if re.search(rf"(?<![^\W_]){re.escape(text)}(?![^\W_])", name)]
    return [number for number in inside if len(names[number]) == longest] or around


def same_file(first: str, second: str) -> bool:
    """Whether two paths, however they are spelt, lead to one scan; a link leads to what it points at."""
    if os.path.exists(first) and os.path.exists(second):
        return os.path.samefile(first, second)
    return os.path.realpath(first) == os.path.realpath(second)  # series in a folder have paths that are no files
