# SPDX-License-Identifier: Apache-2.0
"""What a data set says of itself: modality, structures, classes of patients."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.data import channel_names, is_nnunet, label_names, read_json
from scripts.errors import InputError
from scripts.finetuning import NO_VALUE, read_table

CT = re.compile(r"\b(CB|CE|HR|LD|MD|NC)?CTA?\b|\bCOMPUTED TOMOGRAPHY\b")
MR = re.compile(r"\b(F|MP)?MR[AI]?\b|\bT[12]\w*|\b(ADC|DWI|FLAIR|MPRAGE|PDW?|SWI)\b|\bMAGNETIC RESONANCE\b")
"""Words for either modality, whole ones: "structural" and "functional" hold the letters CT."""


def read_description(dataset: Path) -> dict[str, Any]:
    """
    The description of a data set.

    Args:
        dataset: a folder with ``dataset.json``, or a description alone (a JSON file) of data that are elsewhere.

    Raises:
        InputError: where there is none, or none that is JSON.
    """
    path = dataset if dataset.suffix == ".json" else dataset / "dataset.json"
    if not path.is_file():
        raise InputError(f"{path} does not exist: a child bundle is made from a data set's own description")
    description = read_json(path)
    if not isinstance(description, dict):
        raise InputError(f"{path} must hold one JSON object with modality, labels, training")
    return description


def modality(description: Mapping[str, Any]) -> str:
    """
    CT or MR, from the channels of dataset.json.

    Raises:
        InputError: when they name neither, or both.
    """
    channels = channel_names(description)
    if not channels:
        raise InputError(
            'dataset.json needs "modality" (Decathlon) or "channel_names" (nnU-Net), such as {"0": "MRI"}, or '
            '{"0": "FLAIR", "1": "T1w"} for images of several channels'
        )
    kinds = {name: _kinds(name) for name in channels.values()}
    found = {kind for own in kinds.values() for kind in own}
    unknown = next((name for name, own in kinds.items() if len(own) != 1), None)
    if unknown is not None:
        raise InputError(f"dataset.json names the modality '{unknown}': give it as CT or MRI")
    if len(found) > 1:
        raise InputError(
            f"dataset.json names channels of CT and of MR ({', '.join(kinds)}), each with its own scale: make "
            "the child from channels of one of them"
        )
    return found.pop()


def _kinds(name: str) -> list[str]:
    words = name.upper().replace("_", " ")
    return [kind for kind, pattern in {"CT": CT, "MR": MR}.items() if pattern.search(words)]


def structures(description: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[int]]:
    """
    Structures and the codes that make them up, and the codes that count as background.

    Args:
        description: of dataset.json; ``coarse_labels`` (value, name, source_values) merge its ``labels``.

    Raises:
        InputError: for labels in another form, or none beside the background.
    """
    labels = label_names(description)
    if "ignore" in labels.values():
        raise InputError(
            'dataset.json has nnU-Net\'s label "ignore", for parts that nobody labelled: they would be taken for '
            "background; make it from cases that are labelled whole"
        )
    codes = sorted(code for code in labels if code)
    if not codes:
        raise InputError('dataset.json names no structure beside the background in "labels"')
    if "coarse_labels" in description:
        merged = sorted(description["coarse_labels"], key=lambda entry: entry["value"])
        classes = [{"name": e["name"], "codes": e["source_values"], "value": e["value"]} for e in merged]
    else:
        named: dict[str, list[int]] = {}
        for code in codes:  # a region of nnU-Net may have several
            named.setdefault(labels[code], []).append(code)
        regions = is_nnunet(description)
        entries = named.items() if regions else [(labels[code], [code]) for code in codes]
        classes = [{"name": name, "codes": own} for name, own in entries]
    used = {code for entry in classes for code in entry["codes"]}
    return classes, [code for code in codes if code not in used]


def patient_classes(
    description: Mapping[str, Any], table: Mapping[str, str] | None, dataset: Path
) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """
    Where the class of each patient stands, and the classes.

    Args:
        description: of dataset.json; its ``classes`` (name, values) name or merge the values of the table.
        table: ``file`` (relative to the data), ``id`` and ``target`` column; None where nobody said.
        dataset: folder with the table, from which the classes are read where the description has none.

    Returns:
        the table, and one dictionary a class: ``name`` and the ``values`` that mean it, as written in the table.

    Raises:
        InputError: without a table, or with one that cannot be read.
    """
    wanted = ("file", "id", "target")
    if not isinstance(table, Mapping) or sorted(table) != sorted(wanted):
        raise InputError(
            "a classification needs a table of the patients: pass --table FILE --id COLUMN --target COLUMN, or give "
            'dataset.json "table": {"file": ..., "id": ..., "target": ...}'
        )
    if "classes" in description:
        return dict(table), list(description["classes"])
    rows = read_table(dataset / table["file"], [table["id"], table["target"]])
    values = {row[table["target"]] for row in rows} - {*NO_VALUE}
    return dict(table), [{"name": value, "values": [value]} for value in sorted(values)]
