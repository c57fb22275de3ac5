# SPDX-License-Identifier: Apache-2.0
"""Which scans are matched: lists of pairs for inference and for carrying labels over."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..data.find_scans import find_scans
from ..data.label_checks import check_label
from ..data.result_names import record_results, refuse_overwriting, result_names, scan_name, show_results
from ..data.scan_checks import inspect_scan, scan_exists, tell_decisions, tell_sizes
from ..errors import InputError
from .point_files import TABLE, read_points

Paths = str | Sequence[str]


def expand(paths: Paths, label_maps: bool = False, kind: str | None = None) -> list[str]:
    """
    A list of files from a file, a folder of scans, a pattern such as ``scans/*.nii.gz``, or a list of these. What
    exists under its name is no pattern, whatever brackets are in it.

    Args:
        paths: see above.
        label_maps: whether label maps are meant, which are left out of a folder or what a pattern finds else.
        kind: of the scans in a folder, see :func:`~scripts.data.find_scans`.

    Raises:
        InputError: where nothing is found.
    """
    if not isinstance(paths, str):
        return [path for entry in paths for path in expand(entry, label_maps, kind)]
    if Path(paths).is_dir():
        listed = find_scans(paths, min_subjects=1, label_maps=label_maps, kind=kind)
        return [scan["image"] for scan in listed]
    if scan_exists(paths) or os.path.lexists(paths):
        return [paths]
    folder = Path(paths).parent  # brackets in folders that exist are no pattern either
    while not folder.is_dir():
        folder = folder.parent
    pattern = os.path.join(glob.escape(str(folder)), os.path.relpath(paths, folder))
    found = sorted(map(os.path.normpath, glob.glob(pattern, recursive=True)))
    if not found:
        raise InputError(f"{paths} does not exist: name a scan, a folder of scans or a pattern")
    scans = [path for path in found if scan_name(path) != Path(path).name]  # no description that lies beside a scan
    if not scans:
        return expand(found, label_maps, kind)
    maps = [path for path in scans if not label_maps and inspect_scan(path, constant=True).label_map]
    if 0 < len(maps) < len(scans):
        print(f"left out {len(maps)} label maps that {paths} finds, as {maps[0]} (--label_maps True takes them)")
        return [path for path in scans if path not in maps]
    return scans


def same_file(first: str, second: str) -> bool:
    """Whether two paths, however they are spelt, lead to one scan; a link leads to what it points at."""
    if os.path.exists(first) and os.path.exists(second):
        return os.path.samefile(first, second)
    return os.path.realpath(first) == os.path.realpath(second)  # series in a folder have paths that are no files


def list_pairs(
    dataset_dir: str | None = None,
    fixed: str | None = None,
    moving: Paths | None = None,
    moving_label: Paths | None = None,
    points: Paths | None = None,
    fixed_points: str | None = None,
    points_space: str | None = None,
    pairs: str | Sequence[dict[str, str]] | None = None,
    output_dir: str | None = None,
    dry_run: bool = False,
    label_maps: bool = False,
    kind: str | None = None,
) -> list[dict[str, Any]]:
    """
    The pairs to match.

    Args:
        dataset_dir: without ``pairs`` and without ``fixed`` or ``moving``, the folder whose first scan is the fixed
            one and whose other scans move; labels named in its dataset.json come along.
        fixed: the fixed scan.
        moving: the moving scans: a file, a folder, a pattern or a list.
        moving_label: their label maps, in the same order.
        points: files of landmarks of the moving scans, in the same order, see :func:`~scripts.matching.read_points`.
        fixed_points: file of landmarks of the fixed scan.
        points_space: "RAS" or "LPS", of files that do not say it.
        pairs: instead of all that: dictionaries with ``image`` (fixed), ``moving`` and possibly ``moving_label``,
            ``points`` (of the moving scan) and ``fixed_points``, or the path of a JSON file with such a list.
        output_dir: where results go; None only lists.
        dry_run: print what would be matched, and end the program.
        label_maps: take label maps for scans too.
        kind: see :func:`expand`.

    Returns:
        dictionaries of paths: ``image`` (fixed), ``moving`` and possibly ``label`` (of the moving scan), ``points`` and
        ``fixed_points``, with their ``points_space``; and ``result``, the pair's name, ``<moving>_to_<fixed>``, see
        :func:`~scripts.data.result_names`.

    Raises:
        InputError: naming every scan that cannot be used, or a label map that does not fit.
    """
    if pairs is not None:
        listed = _read_pairs(pairs) if isinstance(pairs, str) else [dict(pair) for pair in pairs]
    elif fixed is not None and moving is not None:
        movers = expand(moving, label_maps, kind)
        of_each = {
            "moving_label": [] if moving_label is None else expand(moving_label, label_maps=True),
            "points": [] if points is None else expand(points),
        }
        for what, files in (("label maps", of_each["moving_label"]), ("files of landmarks", of_each["points"])):
            if files and len(files) != len(movers):
                raise InputError(
                    f"{len(movers)} moving scans have {len(files)} {what}: give one each, in the same order"
                )
        listed = [
            {"image": fixed, "moving": path}
            | {key: files[number] for key, files in of_each.items() if files}
            | ({"fixed_points": fixed_points} if fixed_points is not None else {})
            for number, path in enumerate(movers)
            if not same_file(path, fixed)
        ]
    elif dataset_dir is not None:
        scans = find_scans(dataset_dir, min_subjects=1, label_maps=label_maps, kind=kind)
        others = [scan for scan in scans if not same_file(scan["image"], fixed)] if fixed else scans[1:]
        names = {"image": "moving", "label": "moving_label"}
        listed = [
            {"image": fixed or scans[0]["image"], **{names[key]: scan[key] for key in names if key in scan}}
            for scan in others
        ]
    else:
        raise InputError("nothing to match: pass --fixed and --moving, --pairs, or --dataset_dir")
    if (points is not None or fixed_points is not None) and (pairs is not None or fixed is None or moving is None):
        raise InputError("landmarks go with --fixed and --moving; in --pairs name them there, 'points', 'fixed_points'")
    if not listed:
        raise InputError("nothing to match: there is no moving scan besides the fixed one")
    _check_pairs(listed)
    landmarks = sorted({pair[key] for pair in listed for key in ("points", "fixed_points") if key in pair})
    for path in landmarks:
        read_points(path, points_space)
    listed = list({tuple(pair.items()): pair for pair in listed}.values())  # named by two patterns
    names = result_names([pair[key] for pair in listed for key in ("image", "moving")])
    results = [f"{names[pair['moving']]}_to_{names[pair['image']]}" for pair in listed]
    sources = _sources(results, listed)
    if dry_run:
        show_results(sources)
    if output_dir is not None:
        refuse_overwriting(landmarks, [Path(output_dir, TABLE)])
        record_results(output_dir, sources)
    space = {} if points_space is None else {"points_space": points_space}
    internal = {"moving_label": "label"}  # Spacingd would take "moving_..." for meta data of "moving"
    return [
        {internal.get(key, key): value for key, value in pair.items()} | space | {"result": result}
        for pair, result in zip(listed, results, strict=True)
    ]


def _sources(results: Sequence[str], pairs: Sequence[dict[str, str]]) -> dict[str, list[str]]:
    """Fixed and moving scan by the pair's name; refuses a pair that is listed twice."""
    found: dict[str, list[str]] = {}
    for result, pair in zip(results, pairs, strict=True):
        if result in found:
            raise InputError(
                f"{pair['moving']} is to be matched to {pair['image']} twice, and both would be written to {result}: "
                "list each pair once"
            )
        found[result] = [pair["image"], pair["moving"]]
    return found


def _read_pairs(path: str) -> list[dict[str, str]]:
    try:
        content = json.loads(Path(path).read_bytes())
        root = Path(path).parent
        return [{key: str(root / value) for key, value in pair.items()} for pair in content]
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise InputError(f"{path} is no JSON list of pairs of 'image' and 'moving' ({error})") from error


def _check_pairs(pairs: Sequence[dict[str, str]]) -> None:
    for pair in pairs:
        missing = {"image", "moving"} - set(pair)
        if missing:
            raise InputError(f"the pair {pair} has no '{missing.pop()}': it needs 'image' (fixed) and 'moving'")
    paths = dict.fromkeys(pair[key] for pair in pairs for key in ("image", "moving"))
    checks = {path: inspect_scan(path) for path in paths}
    bad = [f"{path} {check.problem}" for path, check in sorted(checks.items()) if check.problem]
    if bad:
        raise InputError("\n  ".join([f"{len(bad)} of {len(checks)} scans cannot be used:", *bad]))
    tell_decisions(checks)
    tell_sizes(checks)
    labelled = {(pair["moving"], pair["moving_label"]) for pair in pairs if "moving_label" in pair}
    for image, label in sorted(labelled):
        check_label(image, label)
