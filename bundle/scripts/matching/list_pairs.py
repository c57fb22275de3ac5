# SPDX-License-Identifier: Apache-2.0
"""Which scans are matched: lists of pairs for inference and for carrying labels over."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.dataset_json import as_spelt
from ..data.dry_run import Survey, show_and_leave
from ..data.label_checks import check_label
from ..data.result_names import record_results, refuse_overwriting, result_names
from ..errors import InputError, check_flags
from .named_scans import Paths, expand, in_order, look_up, same_file
from .point_files import TABLE, read_points

ENTRIES = ("image", "moving", "moving_label", "points", "fixed_points")
"""Of a pair in a list."""


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
    skip_bad: bool = False,
    layout: Mapping[str, Any] | None = None,
    surveyed: Survey | None = None,
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
        kind: of the scans in a folder, see :func:`~scripts.data.find_scans`.
        skip_bad: leave pairs of scans that cannot be used out instead of refusing.
        layout: of a folder, see :mod:`scripts.data.folder_layouts`.
        surveyed: what is known of the scans of ``pairs``.

    Returns:
        dictionaries of paths: ``image`` (fixed), ``moving`` and possibly ``label`` (of the moving scan), ``points`` and
        ``fixed_points``, with their ``points_space``; and ``result``, the pair's name, ``<moving>_to_<fixed>``, see
        :func:`~scripts.data.result_names`.

    Raises:
        InputError: naming every scan that cannot be used, or a label map that does not fit; for options that are not
            used together.
    """
    check_flags({"skip_bad": skip_bad})
    _refuse_unused(pairs is not None, fixed, moving, moving_label, points if points is not None else fixed_points)
    options: dict[str, Any] = {"label_maps": label_maps, "kind": kind, "skip_bad": skip_bad, "layout": layout}
    found = surveyed or Survey()
    if pairs is not None:
        listed = _read_pairs(pairs) if isinstance(pairs, str) else [dict(pair) for pair in pairs]
    elif fixed is not None and moving is not None:
        found = look_up(moving, **options)
        movers = [scan["image"] for scan in found.scans]
        of_each = {
            "moving_label": [] if moving_label is None else expand(moving_label, label_maps=True, skip_bad=None),
            "points": [] if points is None else expand(points),
        }
        named = {"moving_label": "label maps", "points": "files of landmarks"}
        of_each = {key: in_order(movers, files, named[key]) for key, files in of_each.items() if files}
        listed = [
            {"image": fixed, "moving": path}
            | {key: files[number] for key, files in of_each.items()}
            | ({"fixed_points": fixed_points} if fixed_points is not None else {})
            for number, path in enumerate(movers)
            if not same_file(path, fixed)
        ]
    elif dataset_dir is not None:
        found = look_up(dataset_dir, **options)
        scans = found.scans
        others = [scan for scan in scans if not same_file(scan["image"], fixed)] if fixed else scans[1:]
        names = {"image": "moving", "label": "moving_label"}
        listed = [
            {"image": fixed or scans[0]["image"], **{names[key]: scan[key] for key in names if key in scan}}
            for scan in others
        ]
        missing = [scan["missing_label"] for scan in others if "missing_label" in scan]
        if missing:
            print(f"{len(missing)} of {len(others)} moving scans have no label: {missing[0]} is missing", flush=True)
    else:
        raise InputError("nothing to match: pass --fixed and --moving, --pairs, or --dataset_dir")
    if not listed:
        raise InputError("nothing to match: there is no moving scan besides the fixed one")
    found, listed = _checked(listed, found, skip_bad)
    landmarks = sorted({pair[key] for pair in listed for key in ("points", "fixed_points") if key in pair})
    for path in landmarks:
        read_points(path, points_space)
    listed = list({tuple(pair.items()): pair for pair in listed}.values())  # named by two patterns
    names = result_names([pair[key] for pair in listed for key in ("image", "moving")])
    results = [f"{names[pair['moving']]}_to_{names[pair['image']]}" for pair in listed]
    sources = _sources(results, listed)
    if dry_run:
        show_and_leave([found], sources)
    if output_dir is not None:
        refuse_overwriting(landmarks, [Path(output_dir, TABLE)])
        record_results(output_dir, sources)
    space = {} if points_space is None else {"points_space": points_space}
    internal = {"moving_label": "label"}  # Spacingd would take "moving_..." for meta data of "moving"
    return [
        {internal.get(key, key): value for key, value in pair.items()} | space | {"result": result}
        for pair, result in zip(listed, results, strict=True)
    ]


def _refuse_unused(listed: bool, fixed: str | None, moving: Any, moving_label: Any, landmarks: Any) -> None:
    """Refuse what would not be used beside a list of pairs (``listed``), or in a folder that is matched."""
    if listed and (fixed is not None or moving is not None):
        raise InputError("--pairs names the scans itself: leave --fixed and --moving out, or pass them without --pairs")
    if moving is not None and fixed is None:
        raise InputError("--moving goes with --fixed: pass --fixed <the scan that these are matched to>")
    if moving_label is not None and moving is None:
        raise InputError(
            "label maps go with --fixed and --moving; in --pairs name them there, 'moving_label', those of "
            "--dataset_dir in its dataset.json"
        )
    if landmarks is not None and moving is None:
        raise InputError("landmarks go with --fixed and --moving; in --pairs name them there, 'points', 'fixed_points'")


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
        return [{key: str(as_spelt(root / value)) for key, value in pair.items()} for pair in content]
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise InputError(f"{path} is no JSON list of pairs of 'image' and 'moving' ({error})") from error


def _checked(pairs: list[dict[str, str]], found: Survey, skip_bad: bool) -> tuple[Survey, list[dict[str, str]]]:
    """The scans of the pairs, checked, and the pairs of those that can be used."""
    for pair in pairs:
        missing, unknown = {"image", "moving"} - set(pair), set(pair) - set(ENTRIES)
        if missing:
            raise InputError(f"the pair {pair} has no '{missing.pop()}': it needs 'image' (fixed) and 'moving'")
        if unknown:
            raise InputError(f"the pair {pair} has a '{min(unknown)}': its entries are {', '.join(ENTRIES)}")
    paths = list(dict.fromkeys(pair[key] for pair in pairs for key in ("image", "moving")))
    used = found.usable(paths, skip_bad)
    left = [pair for pair in pairs if pair["image"] in used.checks and pair["moving"] in used.checks]
    if not left:
        raise InputError(f"nothing to match without {used.left_out[-1][0]}, which cannot be used: name another scan")
    labels = {pair["moving"]: pair["moving_label"] for pair in left if "moving_label" in pair}
    given = sorted({(pair["moving"], pair["moving_label"]) for pair in left if "moving_label" in pair})
    empty = [label for image, label in given if not any(check_label(image, label))]
    if empty:
        said = f"{len(empty)} of {len(given)} label maps are empty (background alone), as {empty[0]}"
        if len(empty) == len(given):
            raise InputError(f"{said}: there is nothing to carry; name label maps with structures, or none")
        print(said, flush=True)
    scans = [{**scan, **({"label": labels[scan["image"]]} if scan["image"] in labels else {})} for scan in used.scans]
    return Survey(scans, used.checks, used.left_out), left
