# SPDX-License-Identifier: Apache-2.0

"""
Dice over the steps of a fine-tuning with few labels: ``python benchmarks/steps.py --results TABLE --out steps.png``.

From the shipped weights and from random ones, of ``--mode fitted``, on people held back. What is drawn at step 0 is the
linear layer that it begins with.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bundle"))

import numpy as np
from evidence import results
from evidence.few_labels import SETS
from evidence.plan import Unit
from evidence.results import Value
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from pictures import save_picture
from scripts.errors import InputError, show_one_line

LINES: dict[str, Literal["-", "--"]] = {"shipped": "-", "random": "--"}
"""Of the arms."""
COUNTS = ("1", "3", "5", "10")


def curve(found: Mapping[Unit, Sequence[Value]], arm: str, data: str, count: str) -> dict[int, float]:
    """Mean Dice of all seeds by step; empty where this was not measured."""
    values: dict[int, list[float]] = {}
    for unit, rows in found.items():
        if (unit.arm, unit.data, unit.labelled) != (arm, data, count):
            continue
        for row in rows:
            if unit.measure == "fine_tuning_converged" and row.quantity == "dice_at_step":
                values.setdefault(int(row.case), []).append(row.value)
            elif unit.measure == "levels_probe" and row.quantity == "dice":
                values.setdefault(0, []).append(row.value)
    return {step: float(np.nanmean(values[step])) for step in sorted(values)} if set(values) - {0} else {}


def drawn(found: Mapping[Unit, Sequence[Value]]) -> Figure:
    """
    A panel a set, a colour a number of labelled people.

    Raises:
        InputError: where nothing of it was measured.
    """
    curves = {key: curve(found, *key) for key in product(LINES, SETS, COUNTS)}
    curves = {key: values for key, values in curves.items() if values}
    shown = [data for data in SETS if any(data == key[1] for key in curves)]
    if not shown:
        raise InputError("no fine-tuning by `--mode fitted` was measured: run benchmarks/few_labels.json first")
    colours = dict(zip(COUNTS, colormaps["viridis"](np.linspace(0, 0.85, len(COUNTS))), strict=True))
    figure = Figure(figsize=(3.6 * len(shown) + 1.6, 3.6), layout="constrained")
    for axes, data in zip(np.atleast_1d(figure.subplots(1, len(shown))), shown, strict=True):
        for (arm, where, count), values in curves.items():
            if where == data:
                axes.plot(list(values), list(values.values()), LINES[arm], marker=".", color=colours[count])
        axes.set(title=SETS[data], xlabel="step", ylabel="Dice")
        axes.grid(alpha=0.3)
    labels = [Line2D([], [], color=colour, label=f"{count} labelled") for count, colour in colours.items()]
    weights = [Line2D([], [], color="black", linestyle=line, label=f"{arm} weights") for arm, line in LINES.items()]
    figure.legend(handles=[*labels, *weights], loc="outside right center", fontsize=9)
    return figure


def main(arguments: list[str] | None = None) -> None:
    """
    Run the command.

    Args:
        arguments: its arguments, those of the process by default.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True, help="as benchmarks/results/few_labels.csv")
    parser.add_argument("--out", type=Path, required=True, help="the picture")
    given = parser.parse_args(arguments)
    save_picture(drawn(results.read(given.results)), given.out)


if __name__ == "__main__":
    show_one_line()
    main()
