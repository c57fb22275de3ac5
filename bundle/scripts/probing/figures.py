# SPDX-License-Identifier: Apache-2.0
"""Figures of a probe: differences with their intervals, Dice by step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..plots import subplots

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OURS, OTHER = "#0a7d48", "#8a8f98"
COMPARED = {
    "fine_tuning": ("Fine-tuning", "all weights trained; pre-trained against random ones. The verdict rests on this."),
    "linear_probe": ("Linear probe", "one linear layer on frozen features; pre-trained against random ones."),
    "true_against_exchanged_labels": (
        "True labels",
        "the linear probe of the pre-trained weights; true labels against labels exchanged between the scans. Where "
        "this is not above 0, the labels do not follow the images.",
    ),
    "carry_over": (
        "Labels carried over",
        "from one scan to another by matching; after against before. No label learned.",
    ),
}
"""Comparisons of a probe: name and meaning."""


def intervals_figure(result: Mapping[str, Any]) -> Figure:
    """Each comparison's difference and interval, see :class:`~scripts.probing.Probe`."""
    figure, ((axes,),) = subplots(1, 1, (5.2, 2.6))
    _draw_intervals(axes, result)
    return figure


def curve_figure(result: Mapping[str, Any]) -> Figure:
    """Dice of the subjects held back by step of fine-tuning."""
    figure, ((axes,),) = subplots(1, 1, (5.2, 2.6))
    _draw_curve(axes, result)
    return figure


def probe_figure(result: Mapping[str, Any]) -> Figure:
    """Both of the above and the verdict."""
    figure, ((left, right),) = subplots(1, 2, (9.6, 3.0))
    _draw_intervals(left, result)
    _draw_curve(right, result)
    gain = result["fine_tuning"]
    shown = f"{gain['difference']:+.3f} Dice, 95 % interval {gain['low']:+.3f} to {gain['high']:+.3f}"
    figure.suptitle(f"{result['verdict']['verdict']}: {shown}", fontsize=11)
    return figure


def _draw_intervals(axes: Axes, result: Mapping[str, Any]) -> None:
    axes.axvline(0, color="black", linewidth=1)
    compared = dict(reversed(COMPARED.items()))
    for place, key in enumerate(compared):
        found = result[key]
        colour = OURS if found["low"] > 0 else OTHER
        axes.plot([found["low"], found["high"]], [place, place], color=colour, linewidth=3, solid_capstyle="butt")
        axes.plot(found["difference"], place, "o", color=colour, markersize=8)
    axes.set_ylim(-0.5, len(compared) - 0.5)
    axes.set_yticks(range(len(compared)), [title for title, _ in compared.values()], fontsize=9)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("difference in Dice")


def _draw_curve(axes: Axes, result: Mapping[str, Any]) -> None:
    for arm, title, colour in (("weights", "from the weights", OURS), ("random", "from scratch", OTHER)):
        curve = {int(step): value for step, value in result["fine_tuning_by_step"][arm].items()}
        axes.plot(list(curve), list(curve.values()), marker="o", color=colour, label=title)
    axes.set_xlabel("steps of fine-tuning")
    axes.set_ylabel("Dice, held back")
    axes.legend(fontsize=9)
