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

from ..evaluation import Evaluation
from .planes import as_volume

MEANINGS = {
    "ncc": (
        "Likeness of the images (local NCC)",
        "1: identical, 0: unrelated. Higher is better, but grey values can be matched with the wrong anatomy.",
    ),
    "dice": (
        "Overlap of the labelled structures (Dice)",
        "1: perfect, 0: none. Higher is better. No label was used to match, so this shows whether anatomy was matched.",
    ),
    "hd95": (
        "Distance of the structures' surfaces (HD95, mm)",
        "95 % of the surfaces lie closer than this. 0 is perfect, lower is better.",
    ),
    "restoration_error": (
        "Restoration error (mean squared)",
        "Corrupted and restored image against the clean one, intensities 0 to 1. 0 is perfect, lower is better.",
    ),
    "folded_percentage": (
        "Folded voxels (%)",
        "Where the map turns tissue inside out, which anatomy cannot do. 0 is best; several percent: do not trust it.",
    ),
    "log_jacobian_std": (
        "Unevenness of the map",
        "Standard deviation of the logarithm of the local volume change. 0: the same everywhere; lower is smoother.",
    ),
    "silhouette": (
        "Silhouette of the features",
        "-1 to 1. Near 1: each structure's features form a group of their own; 0 or below: the groups overlap.",
    ),
    "neighbour_purity": (
        "Neighbour purity of the features",
        "Share of a feature's nearest neighbours in OTHER subjects that belong to the same structure. 1 is perfect.",
    ),
}


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
    description = Path(__file__).parent.parent / "configs" / "metadata.json"
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


def ranking(pairs: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """
    Args:
        pairs: measures of each.

    Returns:
        number of the best, the median (of three or more) and the worst pair by Dice, by NCC without labels.
    """
    key = "dice_after" if "dice_after" in pairs[0] else "ncc_after"
    order = sorted(range(len(pairs)), key=lambda n: np.nan_to_num(pairs[n][key], nan=-np.inf), reverse=True)
    chosen = {"Best": order[0], "Worst": order[-1], "Median": order[len(order) // 2]}
    return {name: chosen[name] for name in ("Best", "Median", "Worst") if name != "Median" or len(order) > 2}


def measure_rows(evaluation: Evaluation) -> list[list[Any]]:
    """
    Args:
        evaluation: completed.

    Returns:
        for each measure found: name and meaning, before, after.
    """
    found = {**evaluation.summary["measures"], **evaluation.summary.get("clustering", {})}
    corrupted = [np.square(as_volume(v["corrupted"]) - as_volume(v["moving"])).mean() for v in evaluation.volumes]
    found["restoration_error_before"] = float(np.mean(corrupted))
    rows = []
    for name, (label, meaning) in MEANINGS.items():
        after = found.get(f"{name}_after", found.get(name))
        if name == "neighbour_purity" and after is not None:
            structures = len(np.unique(np.concatenate(evaluation.feature_codes)))
            meaning += f" Chance would be {1 / structures:.2f}."
        if after is not None:
            rows.append([(label, meaning), found.get(f"{name}_before"), after])
    return rows


def pair_rows(pairs: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """
    Args:
        pairs: measures of each.

    Returns:
        head and rows of the table of all pairs.
    """
    measures = [name for name in Evaluation.measures if name in pairs[0]]
    rows = [[f"{row['moving']} → {row['fixed']}", *(row[name] for name in measures)] for row in pairs]
    return ["moving → fixed", *(name.replace("_", " ") for name in measures)], rows


def headline(evaluation: Evaluation) -> str:
    """One sentence and a tile for each of the chief measures."""
    pairs, means = evaluation.pairs, evaluation.summary["measures"]
    key, label = ("dice", "overlap of the labels (Dice)") if "dice_after" in means else ("ncc", "likeness (NCC)")
    better = sum(row[f"{key}_after"] > row[f"{key}_before"] for row in pairs)
    scans = len({row[end] for row in pairs for end in ("fixed", "moving")})
    tiles = {
        name.upper()
        if name == "ncc"
        else name.capitalize(): f"{means[f'{name}_before']:.3f} → {means[f'{name}_after']:.3f}"
        for name in ("dice", "ncc")
        if f"{name}_after" in means
    }
    tiles["Folded voxels"] = f"{means['folded_percentage']:.2f} %"
    shown = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in tiles.items())
    return (
        f"<p>{len(pairs)} pairs of {scans} scans were matched. The {label} is higher after the match in {better} of "
        f'{len(pairs)} pairs.</p><dl class="tiles">{shown}</dl>'
    )
