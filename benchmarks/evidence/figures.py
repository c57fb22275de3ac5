# SPDX-License-Identifier: Apache-2.0

"""Figures of the comparison."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scripts.evaluation import embedding
from scripts.networks import GVSL, UNetBackbone
from scripts.plots import matching_figure
from scripts.probing import sampled_features

from .cohorts import Cohort
from .pretraining import run_folder
from .table import Results


def band(axes: Axes, curves: Sequence[Mapping[float, float]], label: str, colour: Any) -> None:
    """The mean of several curves where all have a value, and the range of them."""
    places = sorted(set.intersection(*(set(curve) for curve in curves)))
    values = np.array([[curve[place] for place in places] for curve in curves])
    axes.plot(places, values.mean(axis=0), marker=".", label=label, color=colour)
    if len(curves) > 1:
        axes.fill_between(places, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.2, linewidth=0)


def _legend(figure: Figure, panels: Iterable[Axes]) -> None:
    """One legend of all panels beside them, each arm once."""
    found = {label: line for axes in panels for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(found.values(), found.keys(), loc="outside right center", fontsize=8)


def colours(plan: Mapping[str, Any]) -> dict[str, Any]:
    """The same colour for an arm in every figure."""
    return {arm: plt.colormaps["tab20"](number % 20) for number, arm in enumerate(plan["arms"])}


def learning_curves(plan: Mapping[str, Any], out: Path, data: str) -> Figure | None:
    """NCC, Dice and restoration error over the steps of the pre-training on a set, a line an arm."""
    quantities = {
        "ncc_after": "NCC of held-back pairs, matched",
        "dice_after": "label Dice of held-back pairs, matched",
        "restoration": "restoration error (training)",
    }
    curves: dict[str, dict[str, list[dict[float, float]]]] = {}
    for arm in plan["arms"]:
        for path in sorted(run_folder(out, data, arm, "*").parent.glob(f"{arm}_*/history.csv")):
            if path.parent.name.rpartition("_")[0] != arm:
                continue
            with path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            for name in quantities:
                length = plan["budget"]["epoch_length"]
                curve = {float(r["epoch"]) * length: float(r[name]) for r in rows if r.get(name)}
                if curve:
                    curves.setdefault(name, {}).setdefault(arm, []).append(curve)
    if not curves:
        return None
    figure, table = plt.subplots(1, len(curves), figsize=(4.6 * len(curves), 3.6), layout="constrained", squeeze=False)
    for axes, (name, of_arms) in zip(table[0], curves.items(), strict=True):
        for arm, runs in of_arms.items():
            band(axes, runs, arm, colours(plan)[arm])
        axes.set(title=quantities[name], xlabel="step")
        axes.grid(alpha=0.3)
    _legend(figure, table[0])
    return figure


def label_efficiency(plan: Mapping[str, Any], results: Results, data: str) -> Figure | None:
    """Dice over the number of labelled subjects, linear probe and fine-tuning, a line an arm."""
    curves: dict[str, dict[str, dict[str, dict[float, float]]]] = {}
    largest = 0.0
    for unit, values in results.items():
        if unit.pretrained_on == unit.data == data and unit.labelled:
            mean = np.nanmean([value.value for value in values if value.quantity == "dice"])
            place = float(unit.labelled) if unit.labelled != "all" else np.inf
            largest = max(largest, place if np.isfinite(place) else 0)
            of_seed = curves.setdefault(unit.measure, {}).setdefault(unit.arm, {}).setdefault(unit.seed, {})
            of_seed[place] = float(mean)
    if not curves:
        return None
    figure, table = plt.subplots(1, len(curves), figsize=(4.8 * len(curves), 3.8), layout="constrained", squeeze=False)
    for axes, (measure, of_arms) in zip(table[0], sorted(curves.items()), strict=True):
        for arm, of_seeds in of_arms.items():
            finite = [{min(place, 3 * largest): value for place, value in one.items()} for one in of_seeds.values()]
            band(axes, finite, arm, colours(plan)[arm])
        places = sorted({place for of_seeds in of_arms.values() for one in of_seeds.values() for place in one})
        ticks = [min(place, 3 * largest) for place in places]
        axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{place:.0f}" if np.isfinite(place) else "all" for place in places], minor=False)
        axes.minorticks_off()
        axes.set(title=measure.replace("_", " "), xlabel="labelled subjects", ylabel="Dice")
        axes.grid(alpha=0.3)
    _legend(figure, table[0])
    return figure


def feature_clusters(backbones: Mapping[str, UNetBackbone], cohort: Cohort, per_structure: int, seed: int) -> Figure:
    """t-SNE of the features of held-back scans, all decoder levels side by side, by structure, a panel an arm."""
    figure, table = plt.subplots(
        1, len(backbones), figsize=(3.6 * len(backbones) + 1.6, 3.8), layout="constrained", squeeze=False
    )
    palette = plt.colormaps["tab20"]
    for axes, (arm, backbone) in zip(table[0], backbones.items(), strict=True):
        levels = len(backbone.features) - 1
        features, codes = sampled_features(backbone, cohort.testing, per_structure, seed, levels)
        places, numbers = embedding(features, seed), np.concatenate(codes)
        for number, name in enumerate(cohort.names, start=1):
            axes.scatter(*places[numbers == number].T, s=4, color=palette((number - 1) % 20), label=name)
        axes.set(title=arm, xticks=[], yticks=[])
    figure.legend(*table[0][-1].get_legend_handles_labels(), loc="outside right center", fontsize=7, markerscale=3)
    return figure


def registration(network: GVSL, cohort: Cohort, title: str) -> Figure:
    """The first held-back scan matched by the first training scan: before and after."""
    fixed, moving = cohort.testing[0]["image"][None], cohort.training[0]["image"][None]
    with torch.no_grad():
        found = network(fixed, moving)
        restored = network(moving)
    first, second, warped, repaired = (volume[0, 0].numpy() for volume in (fixed, moving, found["warped"], restored))
    displacement = found["displacement"][0].numpy()
    return matching_figure(first, second, warped, displacement, None, repaired, cohort.spacing, title)
