# SPDX-License-Identifier: Apache-2.0
"""Which labelled scans give labels to which others of a folder: every scan matched with every atlas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..data.find_scans import find_scans
from ..data.result_names import record_results, refuse_overwriting, result_names, show_results
from ..errors import InputError
from .list_pairs import Paths, expand, list_pairs, same_file


def list_propagation(
    dataset_dir: str,
    atlas: Paths | None,
    atlas_label: Paths | None,
    output_dir: str | None = None,
    dry_run: bool = False,
    label_maps: bool = False,
    kind: str | None = None,
) -> list[dict[str, Any]]:
    """
    Every scan of a folder paired with every atlas.

    Args:
        dataset_dir: folder of the scans that need labels; atlases in it are left out.
        atlas: labelled scans: a file, a folder, a pattern or a list.
        atlas_label: their label maps, in the same order.
        output_dir: where results go; None only lists.
        dry_run: print what would be used, and end the program.
        label_maps: take label maps for scans too.
        kind: see :func:`~scripts.matching.expand`.

    Returns:
        pairs as from :func:`~scripts.matching.list_pairs`, with ``votes``, the number of atlases, and the scan's name
        as ``result``; those of one scan follow each other.

    Raises:
        InputError: without atlases or labels, or where one cannot be used.
    """
    if atlas is None or atlas_label is None:
        raise InputError("carrying labels over needs --atlas <scan> and --atlas_label <its label map>")
    atlases, labels = expand(atlas, label_maps, kind), expand(atlas_label, label_maps=True)
    if len(atlases) != len(labels):
        raise InputError(f"{len(atlases)} atlases have {len(labels)} label maps: give one each, in the same order")
    found = find_scans(dataset_dir, min_subjects=1, label_maps=label_maps, kind=kind)
    scans = [scan["image"] for scan in found]
    unlabelled = [path for path in scans if not any(same_file(path, own) for own in atlases)]
    names = result_names(unlabelled)
    pairs = [
        {"image": path, "moving": moving, "moving_label": label}
        for path in unlabelled
        for moving, label in zip(atlases, labels, strict=True)
    ]
    listed = list_pairs(pairs=pairs)
    if dry_run:
        show_results({name: [path, *atlases] for path, name in names.items()})
    if output_dir is not None:
        refuse_overwriting([*scans, *atlases, *labels], [Path(output_dir, f"{name}.nii.gz") for name in names.values()])
        record_results(output_dir, {name: [path, *atlases] for path, name in names.items()})
    return [{**pair, "votes": len(atlases), "result": names[pair["image"]]} for pair in listed]
