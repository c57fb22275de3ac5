# SPDX-License-Identifier: Apache-2.0
"""One self-contained HTML page about a probe: the verdict first, then what it rests on."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from ..evaluation.report import figure_tag, image_tag, label_centre, number, outline_pictures, table, whole_page
from .figures import COMPARED, curve_figure, intervals_figure

TEMPLATE = Path(__file__).with_name("page_template.html")
FEATURES = {
    "neighbour_purity": "Share of a feature's nearest neighbours in OTHER subjects that belong to its structure.",
    "silhouette": "-1 to 1. Near 1: the features of each structure form a group of their own.",
    "embedding_collapse": "0: the features vary in all directions alike; 1: in a single one.",
}


def probe_page(result: Mapping[str, Any], pictures: Mapping[str, Any]) -> str:
    """
    Args:
        result: of :class:`~scripts.probing.Probe`.
        pictures: ``name``, ``image``, ``label`` and the label maps ``weights`` and ``random`` ``(D, H, W)`` of a scan
            held back; empty without labels.

    Returns:
        the page.
    """
    sections = [_labelled(result, pictures)] if "verdict" in result else []
    sections += [_scan_level(result["scan_level"])] if "scan_level" in result else []
    rows = [(name, str(value)) for name, value in result["settings"].items()]
    parts = {
        "headline": _headline(result),
        "sections": "\n".join(sections),
        "settings": table(["setting", "value"], rows, "What was run", "wraps"),
    }
    return whole_page(TEMPLATE, "GVSL probe: will it help?", parts, "Will these weights help on these scans?")


def _interval(found: Mapping[str, Any]) -> str:
    return f"{found['difference']:+.3f} ({found['low']:+.3f} to {found['high']:+.3f})"


def _headline(result: Mapping[str, Any]) -> str:
    if "verdict" not in result:
        return "<p>No labels were given: the page tells of the table alone.</p>"
    said, gain = result["verdict"], result["fine_tuning"]
    kind = {"helps": "good", "does not help": "bad"}.get(said["verdict"], "open")
    tiles = {
        "From the weights": f"{gain['mean']:.3f}",
        "From scratch": f"{gain['other_mean']:.3f}",
        "Subjects better": f"{gain['higher']} of {gain['subjects']}",
    }
    shown = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in tiles.items())
    what = (
        f"{result['scans']} labelled scans of {result['subjects']} subjects, {len(result['structures'])} structures; "
        f"{result['folds']} folds, each subject held back once; {result['steps']} steps of fine-tuning. "
        f"{result['pretrained_on']} of the scans were among those of the pre-training, without their labels. Dice:"
    )
    return (
        f'<p class="verdict {kind}">{escape(said["verdict"].capitalize())}</p>'
        f"<p>{escape(_sentence(said['why']) + _beside(result))}</p>"
        f'<p class="quiet">{escape(what)}</p><dl class="tiles">{shown}</dl>'
        f"<details><summary>The rule</summary><p>{escape(said['rule'])}</p></details>"
    )


def _beside(result: Mapping[str, Any]) -> str:
    """What the weights are good for beside fine-tuning."""
    gained = {"linear_probe": "a linear layer on the frozen features", "carry_over": "labels carried over by matching"}
    found = [f"{text} {_interval(result[key])}" for key, text in gained.items() if result[key]["low"] > 0]
    return f" Without training the network, the weights gain by {' and by '.join(found)}." if found else ""


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _labelled(result: Mapping[str, Any], pictures: Mapping[str, Any]) -> str:
    rows = [
        [meaning, number(result[key]["other_mean"], 3), number(result[key]["mean"], 3), _interval(result[key])]
        for key, meaning in COMPARED.items()
    ]
    features = result["features"]
    clusters = [
        [
            (name.replace("_", " ").capitalize(), meaning),
            number(features["random"].get(name)),
            number(features["weights"].get(name)),
        ]
        for name, meaning in FEATURES.items()
    ]
    subjects = [
        [
            subject,
            *(number(row[key], 3) for key in ("fine_tuning_random", "fine_tuning_weights", "not_matched", "carried")),
        ]
        for subject, row in sorted(result["by_subject"].items())
    ]
    chance = features["weights"]["chance"]
    folding = result["carry_over"]["folded_percentage"]
    return (
        '<section id="gain"><h2>How much is gained</h2>'
        "<p>Differences in Dice on subjects held back, with 95 % intervals. Right of the line at 0 is better.</p>"
        f'<div class="strips">{image_tag(intervals_figure(result), "Differences in Dice with their intervals")}'
        f"{image_tag(curve_figure(result), 'Dice by step of fine-tuning')}</div>"
        f"{table(['', 'without', 'with', 'difference'], rows, 'Comparisons', 'stacked')}</section>"
        '<section id="seen"><h2>A subject held back</h2>'
        "<p>The one of the median gain. Green: its own labels, magenta: what was predicted, white: both coincide.</p>"
        f'<div class="wide">{_outlines(pictures, result)}</div></section>'
        '<section id="features"><h2>Features without any training</h2>'
        f"<p>Purity by chance would be {chance:.2f}. {folding:.2f} % of the voxels fold by the matches.</p>"
        f"{table(['', 'random', 'weights'], clusters, 'Features')}</section>"
        '<section id="subjects"><h2>Subjects</h2>'
        f"{table(['subject', 'from scratch', 'from the weights', 'not matched', 'carried over'], subjects, 'Subjects')}"
        "</section>"
    )


def _outlines(pictures: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    spacing = result["settings"].get("pixdim", (1, 1, 1))
    centre = label_centre(pictures["label"])
    titles = {"random": "From scratch", "weights": "From the weights"}
    return "".join(
        figure_tag(
            outline_pictures(pictures["image"], pictures["label"], pictures[arm], spacing, 360, centre),
            title,
            pictures["name"],
        )
        for arm, title in titles.items()
    )


def _scan_level(told: Mapping[str, Any]) -> str:
    names = {"auroc": "AUROC", "f1": "F1", "accuracy": "accuracy", "r2": "R2", "mae": "mean absolute error"}
    rows = [
        [names[key], *(own[key] for own in told["measures"].values())] for key in next(iter(told["measures"].values()))
    ]
    gain = told["gain"]
    groups = ""
    if "groups" in told:
        members = list(dict.fromkeys(name for own in told["groups"].values() for name in own["scores"]))
        own_rows = [[name, *(own["scores"].get(name) for own in told["groups"].values())] for name in members]
        own_rows.append(["gap", *(own["gap"] for own in told["groups"].values())])
        measure = names[next(iter(told["groups"].values()))["measure"]]
        groups = f"<h3>By group</h3>{table([measure, *told['groups']], own_rows, 'Groups')}"
    return (
        f'<section id="scan"><h2>Scan by scan: {escape(told["target"])}</h2>'
        f"<p>{escape(told['task'].capitalize())} of {told['patients']} patients ({told['scans']} scans) by a linear "
        "model on the frozen features of each scan, their mean over it; cross-validated by patient. "
        f"Gain in {names[gain['measure']]}: {escape(_interval(gain))}.</p>"
        f"{table(['', *told['measures']], rows, 'Scan by scan')}{groups}</section>"
    )
