# SPDX-License-Identifier: Apache-2.0
"""Which labelled scans give labels to which others of a folder, those among them that a person has corrected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data.dry_run import show_and_leave
from ..data.label_checks import check_label, tell_missing
from ..data.labels import as_codes, label_type
from ..data.reading import read_scan, scan_geometry
from ..data.result_names import VOLUME_ENDINGS, record_results, refuse_overwriting, result_names, scan_name
from ..data.writing import write_nifti
from ..errors import InputError, check_flags
from .list_pairs import list_pairs
from .match_table import put_rows
from .named_scans import Paths, expand, in_order, look_up, same_file
from .vote_labels import COLUMNS, CONFIDENCE, TABLE, doubt

CORRECTED = "corrected"
"""Folder of the label maps that a person has corrected, inside that of the results and with their names."""


def list_propagation(
    dataset_dir: Paths,
    atlas: Paths | None,
    atlas_label: Paths | None,
    output_dir: str | None = None,
    dry_run: bool = False,
    label_maps: bool = False,
    kind: str | None = None,
    skip_bad: bool = False,
    layout: Mapping[str, Any] | None = None,
    unused: Mapping[str, Any] | None = None,
    partial_labels: bool = False,
) -> list[dict[str, Any]]:
    """
    Every scan of a folder paired with every atlas. Scans with a label map of their result's name in
    ``<output_dir>/corrected`` are atlases too.

    Args:
        dataset_dir: the scans that need labels: a folder, a scan, a pattern or a list of these; atlases among them are
            left out.
        atlas: labelled scans: a file, a folder, a pattern or a list.
        atlas_label: their label maps, in the same order.
        output_dir: where results go; None only lists.
        dry_run: print what would be used, and end the program.
        label_maps: take label maps for scans too.
        kind: of the scans in a folder, see :func:`~scripts.data.find_scans`.
        skip_bad: leave scans that cannot be used out instead of refusing; atlases are never left out.
        layout: of ``dataset_dir``, see :mod:`scripts.data.folder_layouts`.
        unused: options of a match that say nothing here, by name; each must be None.
        partial_labels: what a label map does not show was not drawn; where it is False and atlases lack structures that
            others show a line says so.

    Returns:
        pairs as from :func:`~scripts.matching.list_pairs`, with ``votes``, the number of atlases, and the scan's name
        as ``result``; those of one scan follow each other.

    Raises:
        InputError: without atlases or labels, or where one cannot be used.
    """
    idle = next((name for name, value in (unused or {}).items() if value is not None), None)
    if idle is not None:
        raise InputError(f"--{idle} is of a match: labels are carried by --atlas, --atlas_label and --dataset_dir")
    if atlas is None or atlas_label is None:
        raise InputError("carrying labels over needs --atlas <scan> and --atlas_label <its label map>")
    atlases = expand(atlas, label_maps=label_maps, kind=kind, skip_bad=None)
    labels = in_order(atlases, expand(atlas_label, label_maps=True, skip_bad=None), "label maps")
    check_flags({"skip_bad": skip_bad, "partial_labels": partial_labels})
    found = look_up(dataset_dir, label_maps, kind, skip_bad, layout)
    scans = [scan["image"] for scan in found.scans]
    unlabelled = [path for path in scans if not any(same_file(path, own) for own in atlases)]
    names = result_names(unlabelled)
    given = {name: [path, *atlases] for path, name in names.items()}
    corrected = corrected_maps(output_dir, names)
    together = [*zip(atlases, labels, strict=True), *corrected.items()]
    pairs = [
        {"image": path, "moving": moving, "moving_label": label}
        for path in unlabelled
        for moving, label in together
        if path not in corrected
    ]
    if not pairs:
        raise InputError(f"every scan of {dataset_dir} has a label: there is none to carry labels to")
    listed = list_pairs(pairs=pairs, surveyed=found)
    for moving, label in together:
        print(f"atlas {moving} with the label map {label}", flush=True)
    if not partial_labels and len(together) > 1:
        shown = [check_label(moving, label) for moving, label in together]
        tell_missing({f"code {code}": [code] for code in sorted(set().union(*shown) - {0})}, shown)
    if dry_run:
        wanted = {name: sources for name, sources in given.items() if sources[0] not in corrected}
        show_and_leave([found.usable([path for sources in wanted.values() for path in sources])], wanted)
    if output_dir is not None:
        refuse_overwriting([*scans, *atlases, *labels], [Path(output_dir, f"{name}.nii.gz") for name in names.values()])
        folders = [dataset_dir] if isinstance(dataset_dir, str) else dataset_dir
        if any(same_file(folder, output_dir) for folder in folders):
            raise InputError(f"{output_dir} is the folder of the scans: pass another --output_dir")
        record_results(output_dir, given)
    return [{**pair, "votes": len(together), "result": names[pair["image"]]} for pair in listed]


def corrected_maps(output_dir: str | None, names: dict[str, str]) -> dict[str, str]:
    """
    The label maps in ``<output_dir>/corrected``.

    Args:
        output_dir: folder of the results.
        names: of the results, by path of the scan.

    Returns:
        path of the label map by path of its scan.

    Raises:
        InputError: for a file that has the name of no result, or two for one.
    """
    folder = Path(output_dir or "", CORRECTED)
    if output_dir is None or not folder.is_dir():
        return {}
    scans = {name: path for path, name in names.items()}
    found: dict[str, str] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not path.name.lower().endswith(VOLUME_ENDINGS):
            continue
        scan = scans.get(scan_name(path))
        if scan is None:
            raise InputError(
                f"{path} has the name of no result in {output_dir}: save it as a label map under the name of the "
                f"one that it corrects, such as {next(iter(scans), 'scan')}.nii.gz"
            )
        if scan in found:
            raise InputError(f"{found[scan]} and {path} both correct one label map: move one elsewhere")
        found[scan] = str(path)
    return found


def take_corrected(output_dir: str, pairs: Sequence[Mapping[str, Any]]) -> None:
    """
    Put corrected label maps in the place of the results that they correct, which then count as sure.

    Args:
        output_dir: folder of the results.
        pairs: see :func:`list_propagation`.
    """
    folder = Path(output_dir)
    atlases = dict.fromkeys((str(pair["moving"]), str(pair["label"])) for pair in pairs)
    for scan, label in atlases:
        if Path(label).parent != folder / CORRECTED:
            continue
        name, codes = scan_name(label), as_codes(np.asarray(read_scan(label)[1]))
        geometry = scan_geometry(scan)
        write_nifti(
            codes.astype(label_type(np.unique(codes).tolist())), geometry.affine, folder / f"{name}.nii.gz", geometry
        )
        (folder / CONFIDENCE / f"{name}.nii.gz").unlink(missing_ok=True)
        row = {"confidence": "1.0000", "look_at": "corrected"}
        put_rows(folder / TABLE, COLUMNS, name, [row], doubt)
