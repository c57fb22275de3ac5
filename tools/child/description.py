# SPDX-License-Identifier: Apache-2.0
"""What a data set says of itself: modality, structures, classes of patients."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.errors import InputError
from scripts.finetuning import read_table

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
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error}): correct it") from error
    if not isinstance(description, dict):
        raise InputError(f"{path} must hold one JSON object with modality, labels, training")
    return description


def modality(description: Mapping[str, Any]) -> str:
    """
    CT or MR, from the first channel of dataset.json.

    Raises:
        InputError: when it names neither, or both.
    """
    channels = description.get("modality")
    if not isinstance(channels, Mapping) or len(channels) != 1:
        raise InputError('dataset.json needs "modality" with one channel, such as {"0": "MRI"}')
    named = str(next(iter(channels.values())))
    words = named.upper().replace("_", " ")
    found = [kind for kind, pattern in {"CT": CT, "MR": MR}.items() if pattern.search(words)]
    if len(found) != 1:
        raise InputError(f"dataset.json names the modality '{named}': give it as CT or MRI")
    return found[0]


def structures(description: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[int]]:
    """
    Structures and the codes that make them up, and the codes that count as background.

    Args:
        description: of dataset.json; ``coarse_labels`` (value, name, source_values) merge its ``labels``.

    Raises:
        InputError: for labels in another form, or none beside the background.
    """
    labels = description.get("labels")
    if not isinstance(labels, Mapping) or not all(str(code).isdigit() for code in labels):
        raise InputError('dataset.json needs "labels" such as {"0": "background", "1": "liver"}')
    codes = sorted(int(code) for code in labels if int(code))
    if not codes:
        raise InputError('dataset.json names no structure beside the background in "labels"')
    if "coarse_labels" in description:
        merged = sorted(description["coarse_labels"], key=lambda entry: entry["value"])
        classes = [{"name": e["name"], "codes": e["source_values"], "value": e["value"]} for e in merged]
    else:
        classes = [{"name": labels[str(code)], "codes": [code]} for code in codes]
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
    values = {row[table["target"]] for row in rows} - {""}
    return dict(table), [{"name": value, "values": [value]} for value in sorted(values)]
