# SPDX-License-Identifier: Apache-2.0

"""Tables of the shipped weights' own measures, few labels and purity, and of features read in another modality."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from . import results
from .plan import Unit
from .results import Value
from .table import paired_p, table

SETS = {
    "ixi_brain": "heads",
    "ixi_brain, 3 mm": "heads, 3 mm",
    "hippocampus": "hippocampus",
    "openkbp_headneck_ct": "CT",
    "sunnybrook_cardiac": "left ventricle",
}
WAYS = {
    "propagation": "the one label carried over, nothing trained",
    "linear_probe": "linear layer on f^l alone, frozen",
    "few_voxels_probe": "linear layer on all decoder levels, frozen, of 8000 voxels a scan and 40 iterations",
    "levels_probe": "linear layer on all decoder levels, frozen",
    "fine_tuning": "last layer and last level random: rates 5e-4 and 0.05 (`--mode finetune`)",
    "fine_tuning_gentle": "linear layer first, then all weights gently: rates 1e-4 and 1e-3",
    "fine_tuning_fitted": "linear layer of 8000 voxels a scan first, then all weights: rates 8e-4 and 8e-3",
    "fine_tuning_converged": "linear layer first, then all weights: rates 8e-4 and 8e-3 (`--mode fitted`)",
    "fine_tuning_carried": "gently, also on ten scans with the label carried over",
    "fine_tuning_pseudo_labels": "`--mode fitted`, also on ten scans with the labels carried over, by confidence",
    "fine_tuning_pseudo_alike": "`--mode fitted`, also on ten scans with the labels carried over, all alike",
    "fine_tuning_pseudo_longer": "the same by 400 steps",
}
ARMS = {"shipped": "", "earlier": ", earlier weights", "random": ", random weights"}
"""Of the results, and how a row of each is told from that of the shipped weights. Earlier ones have 17,500 steps."""
Cases = dict[tuple[str, str], float]


def dice_of(found: Mapping[Unit, list[Value]], arm: str) -> dict[tuple[str, str, str], Cases]:
    """By measure, set and number of labels: the Dice of each seed and case."""
    values: dict[tuple[str, str, str], Cases] = {}
    for unit, rows in found.items():
        if unit.arm == arm:
            own = values.setdefault((unit.measure, unit.data, unit.labelled or "1"), {})  # one atlas
            own |= {(unit.seed, row.case): row.value for row in rows if row.quantity in ("dice", "dice_after")}
    return values


def few_labels(path: Path, subjects: str) -> str:
    """
    Ways to use a few labels, the Dice of each.

    Args:
        path: of the results.
        subjects: whose they are, for the heads of the tables.
    """
    found = results.read(path)
    values = {arm: dice_of(found, arm) for arm in ARMS}
    measured = {key for of in values.values() for key in of}
    said = []
    for data, where in SETS.items():
        counts = [n for n in ("1", "3", "5", "10", "all") if any((way, data, n) in measured for way in WAYS)]
        lines = []
        for measure, what in WAYS.items():
            for arm, weights in ARMS.items():
                cells = []
                for count in counts:
                    own = values[arm].get((measure, data, count), {})
                    p = paired_p(own, values["random"].get((measure, data, count), {}))
                    mark = " *" if arm != "random" and p < 0.05 else ""
                    cells.append(f"{np.mean(list(own.values())):.3f}{mark}" if own else "")
                if any(cells):
                    lines.append([what + weights, *cells])
        if lines:
            said.append(table([f"{where}, Dice, {subjects}: labelled", *counts], lines))
    if not said:
        return "Not run yet."
    tests = "\n\n`*`: p < 0.05 against random weights used alike, paired by subject."
    return "\n\n".join(said) + (tests if "*" in str(said) else "")


def purity(folder: Path) -> str:
    """
    Neighbours of other people that show the same structure, and how far the features collapse, on people held back.

    Args:
        folder: of the results.
    """
    measured: dict[str, dict[tuple[str, str, str], float]] = {}
    for unit, rows in results.read(folder / "few_labels.csv").items():
        for row in rows if unit.measure.endswith("clustering") else ():
            measured.setdefault(unit.data, {})[unit.arm, unit.measure, row.quantity] = row.value
    columns = {
        f"{what}: {where}{weights}": (arm, measure, quantity)
        for quantity, what in (("neighbour_purity", "purity"), ("embedding_collapse", "collapse"))
        for measure, where in (("clustering", "f^l"), ("levels_clustering", "all levels"))
        for arm, weights in ARMS.items()
    }
    columns = {head: key for head, key in columns.items() if any(key in own for own in measured.values())}
    lines = [
        [SETS[data], *(f"{own[key]:.3f}" if key in own else "" for key in columns.values())]
        for data, own in measured.items()
    ]
    return table(["", *columns], lines) if lines else "Not run yet."


def across(folder: Path) -> str:
    """
    Pre-trained on one modality and read in another: heads in MR, heads and necks in CT, Dice on people held back.

    Args:
        folder: of the results.
    """
    sets = ("ixi_brain", "openkbp_headneck_ct")
    columns = {
        "f^l: 1 labelled": ("linear_probe", "1"),
        "10": ("linear_probe", "10"),
        "all levels: 1": ("levels_probe", "1"),
        "10 ": ("levels_probe", "10"),
        "carried over": ("propagation", ""),
    }
    found = results.read(folder / "across.csv")
    rows = []
    for data in sets:
        for arm, source in (("random", data), *(("redundancy", source) for source in sets)):
            cells = []
            for measure, labelled in columns.values():
                values = found.get(Unit(source, arm, "0", data, measure, labelled), [])
                dice = [value.value for value in values if value.quantity in ("dice", "dice_after")]
                cells.append(f"{np.nanmean(dice):.3f}" if dice else "")
            weights = "random weights" if arm == "random" else f"pre-trained on {SETS[source]}"
            rows.append([SETS[data], weights, *cells])
    return table(["read in", "", *columns], rows) if found else "Not run yet."
