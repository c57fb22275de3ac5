# SPDX-License-Identifier: Apache-2.0
"""What the report says in words and numbers."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import monai
import numpy as np
import torch

from ...matching.match_table import CONFIDENCE
from ..evaluation import Evaluation
from .html import DIGITS, change, number
from .meanings import MEANINGS

DOUBTFUL = "\u26a0 look at it"
"""Of a match that is not to be trusted."""


def read_history(model: str | None) -> list[dict[str, float]]:
    """
    Args:
        model: weights, in the folder of the training run.

    Returns:
        the rows of ``history.csv`` beside them; none where there is no such file, or another program's.
    """
    path = Path(model or "").with_name("history.csv") if model else None
    if path is None or not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    except (ValueError, TypeError, AttributeError):
        return []
    return [row for row in rows if "epoch" in row]


def provenance(model: str | None, settings: Mapping[str, Any], device: str) -> list[tuple[str, str]]:
    """
    What was run, with what.

    Args:
        model: weights; None where none were loaded.
        settings: values of the configuration.
        device: that was computed on.

    Returns:
        names and values.
    """
    rows = [("model", model or "none: the network is untrained")]
    if model:
        rows.append(("SHA-256 of the model", hashlib.sha256(Path(model).read_bytes()).hexdigest()))
    rows += [(name, str(value)) for name, value in settings.items()]
    description = Path(__file__).parents[3] / "configs" / "metadata.json"
    if description.is_file():
        rows.append(("bundle version", json.loads(description.read_text(encoding="utf-8"))["version"]))
    versions = {"Python": platform.python_version(), "torch": torch.__version__, "MONAI": monai.__version__}
    rows += [*versions.items(), ("NumPy", np.__version__), ("device", device), ("system", platform.platform())]
    return rows


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Paths without the folder that all have in common."""
    found = list(dict.fromkeys(names))
    same_kind = len({os.path.isabs(name) for name in found}) == 1
    common = os.path.commonpath([os.path.dirname(name) for name in found]) if same_kind else ""
    return {name: os.path.relpath(name, common) if common else name for name in found}


def named_pairs(pairs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The pairs' measures, with short names of the scans."""
    names = short_names(row[end] for row in pairs for end in ("fixed", "moving"))
    return [{**row, "fixed": names[row["fixed"]], "moving": names[row["moving"]]} for row in pairs]


def ranked(pairs: Sequence[Mapping[str, Any]]) -> list[int]:
    """
    Args:
        pairs: measures of each.

    Returns:
        numbers of the pairs, best first, by Dice where there are labels (pairs without one left out), else by NCC.
    """
    key = "dice_after" if any("dice_after" in row for row in pairs) else "ncc_after"
    having = [n for n, row in enumerate(pairs) if key in row]
    return sorted(having, key=lambda n: np.nan_to_num(pairs[n][key], nan=-np.inf), reverse=True)


def ranking(pairs: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """
    Args:
        pairs: measures of each.

    Returns:
        number of the best, the median (of three or more) and the worst pair, see :func:`ranked`; of a single one that.
    """
    order = ranked(pairs)
    if len(order) == 1:
        return {"The only": order[0]}
    chosen = {"Best": order[0], "Median": order[len(order) // 2], "Worst": order[-1]}
    return {name: place for name, place in chosen.items() if name != "Median" or len(order) > 2}


def measure_rows(evaluation: Evaluation) -> list[list[Any]]:
    """
    Args:
        evaluation: completed.

    Returns:
        for each measure found: name and meaning, value before and after or one value.
    """
    found = {**evaluation.summary["measures"], **evaluation.summary["features"]}
    rows = []
    for name, (label, meaning) in MEANINGS.items():
        if name == "neighbour_purity" and name in found:
            structures = len(np.unique(np.concatenate(evaluation.feature_codes)))
            meaning += f" Chance would be {1 / structures:.2f}."
        if f"{name}_after" in found:
            rows.append([(label, meaning), change(found, name)])
        elif name in found:
            rows.append([(label, meaning), number(found[name])])
    return rows


def pair_rows(pairs: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """
    Args:
        pairs: measures of each.

    Returns:
        head and rows of the table of all pairs, best first; those without labels last.
    """
    order = ranked(pairs)
    order += [n for n in range(len(pairs)) if n not in set(order)]
    columns = {"dice": "Dice", "ncc": "NCC"}
    own = [name for name in CONFIDENCE if any(name in row for row in pairs)]
    judged = any("look_at" in row for row in pairs)
    columns = {name: label for name, label in columns.items() if any(f"{name}_after" in row for row in pairs)}
    rows = [
        [
            f"{pairs[n]['moving']} \u2192 {pairs[n]['fixed']}",
            *(change(pairs[n], name) for name in columns),
            number(pairs[n]["folded_percentage"]),
            *(number(pairs[n].get(name), DIGITS[name]) for name in own),
            *([(DOUBTFUL, pairs[n]["doubts"]) if pairs[n].get("look_at") == "yes" else ""] if judged else []),
        ]
        for n in order
    ]
    head = ["moving \u2192 fixed", *columns.values(), "folded, %", *own, *(["match"] if judged else [])]
    return head, rows


def chance(p: float) -> str:
    """A p value in words of a text."""
    return "" if np.isnan(p) else "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def headline(evaluation: Evaluation) -> str:
    """A few sentences and a tile for each of the chief measures."""
    summary, means = evaluation.summary, evaluation.summary["measures"]
    key, label = ("dice", "overlap of the labels (Dice)") if "dice" in summary["gains"] else ("ncc", "likeness (NCC)")
    gain, pairs, labelled = summary["gains"][key], summary["pairs"], summary["pairs_with_labels"]
    p = chance(gain["wilcoxon_p"])
    text = f"{pairs} pairs of {summary['scans']} scans were matched"
    text += f"; both scans have labels in {labelled} of them. " if 0 < labelled < pairs else ". "
    text += (
        f"The {label} is higher after the match in {gain['higher_after']} of {gain['person_pairs']} pairs of persons"
    )
    text += f" (Wilcoxon, {p}; pairs that share a person are not independent)." if p else "."
    seen = summary["trained_on"]["scans"]
    if seen and summary["trained_on"]["left_out"]:
        text += f" {len(seen)} further scans of the folder were left out: the model was trained on them."
    elif seen:
        text += f" Beware: the model was trained on {len(seen)} scans of the folder, which are among these."
    if doubtful := summary["to_look_at"]:
        text += f" {doubtful} of the matches should be looked at: they say of themselves that they may have failed."
    names = {"dice": "Dice", "ncc": "NCC", "hd95": "HD95, mm"}
    tiles = {title: change(means, name) for name, title in names.items() if f"{name}_after" in means}
    tiles["Folded voxels"] = f"{means['folded_percentage']:.2f} %"
    shown = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in tiles.items())
    return f'<p>{escape(text)}</p><dl class="tiles">{shown}</dl>'
