# SPDX-License-Identifier: Apache-2.0

"""
The result tables of the documents, made anew from ``benchmarks/results``: ``python benchmarks/tables.py``.

A table stands between two comments, ``<!-- NAME: ... -->`` and ``<!-- NAME ends -->``; what lies between them is
replaced.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import mean

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bundle"))

import scan_level
from comparison.tables import Row, summarise
from evidence import results
from evidence.few_labels import WAYS, across, dice_of, few_labels, purity
from evidence.plan import BUNDLE, REPOSITORY, read_plan
from evidence.table import Question, cell, compare, paired_p, table
from scripts.data import read_json
from scripts.errors import InputError

RESULTS = REPOSITORY / "benchmarks" / "results"
COMPARED = {
    "heads": ("heads, 2 mm, 12 structures", ".0f"),
    "hippocampus": ("hippocampus, 1 mm, 2 structures", ".1f"),
    "ct": ("head and neck CT, from 6 mm, 7 organs", ".0f"),
}
FINE_TUNED = {
    "ixi_brain": "heads, 4 mm, 12 structures",
    "hippocampus": "hippocampus, 1 mm, 2 structures",
    "openkbp_headneck_ct": "head and neck CT, 6 mm, 7 organs",
}
DIGITS = {"angle_after": 1, "steps_to_90_percent": 0}


def matched() -> dict[str, dict[str, dict[str, float]]]:
    """By set and method the means of the matches of people held back."""
    found = {}
    for name in COMPARED:
        with (RESULTS / f"comparison_held_back_{name}.csv").open(newline="", encoding="utf-8") as file:
            rows: list[Row] = list(csv.DictReader(file))
        for row in rows:
            row |= {key: float(row[key] or "nan") for key in row if key not in ("method", "fixed", "moving")}
        found[name] = summarise(rows)
    return found


def eval_metrics() -> dict[str, float]:
    """Of ``metadata.json``: Dice of labels carried to people held back, by one pass and refined."""
    ways = {"ours": "one_pass", "ours_refined": "refined"}
    return {
        f"dice_{name}_{way}": round(found[method]["dice"], 3)
        for name, found in matched().items()
        for method, way in ways.items()
    }


def matching() -> str:
    """Of the README: Dice and seconds."""
    rows = []
    for name, found in matched().items():
        what, digits = COMPARED[name]
        shown = ("ours", "ours_refined", "greedy")
        best = max(found[method]["dice"] for method in shown)
        cells = []
        for method in shown:
            dice, seconds = found[method]["dice"], found[method]["cpu_seconds"]
            cells.append(f"{f'**{dice:.3f}**' if dice == best else f'{dice:.3f}'} ({seconds:{digits}} s)")
        matches = f"{what}, {found['ours']['matches']:.0f} matches"
        rows.append([matches, f"{found['before']['dice']:.3f}", *cells])
    return table(["", "before", "one pass", "`--refine 20`", "greedy"], rows)


def matching_card() -> str:
    """Of the model card: Dice and its 5th percentile, and what a match costs."""
    rows = []
    for name, found in matched().items():
        both = (f"{found[m]['dice']:.3f}, {found[m]['dice_5th']:.3f}" for m in ("ours", "ours_refined", "greedy"))
        affine = ", ".join(f"{found[method]['dice']:.3f}" for method in ("ours_affine", "greedy_affine"))
        seconds = ", ".join(f"{found[method]['cpu_seconds']:.1f}" for method in ("ours", "ours_refined", "greedy"))
        matches = f"{COMPARED[name][0]}, {found['ours']['matches']:.0f} matches"
        rows.append([matches, f"{found['before']['dice']:.3f}", affine, *both, seconds])
    heads = ["", "before", "affine alone: ours, greedy", "one pass", "`--refine 20`", "greedy"]
    return table([*heads, "CPU seconds: one pass, refined, greedy"], rows)


def fine_tuned() -> str:
    """Of the README: Dice from a few labels, the better way from random weights, ``fitted`` from the shipped ones."""
    found = results.read(RESULTS / "few_labels.csv")
    shipped, scratch = (dice_of(found, arm) for arm in ("shipped", "random"))
    rows = []
    for data, what in FINE_TUNED.items():
        cells = []
        for count in ("1", "3", "5", "10"):
            ways = ("fine_tuning_converged", "fine_tuning_fitted")
            tuned = next((own for way in ways if (own := shipped.get((way, data, count)))), None)
            others = [own for way in WAYS if (own := scratch.get((way, data, count))) and way.startswith("fine_tuning")]
            if not tuned or not others:
                cells.append("")
                continue
            best = max(others, key=lambda own: mean(own.values()))
            means = mean(best.values()), mean(tuned.values())
            sure = paired_p(tuned, best) < 0.01
            cells.append(", ".join(f"**{own:.3f}**" if sure and own == max(means) else f"{own:.3f}" for own in means))
        if any(cells):
            rows.append([f"{what}, {len(shipped['levels_probe', data, '1'])} scans", *cells])
    return table(["labelled people: from scratch, pre-trained", "1", "3", "5", "10"], rows)


def evidence() -> str:
    """Of the evidence: the arms that were run, on heads."""
    plan = read_plan(REPOSITORY / "benchmarks" / "evidence.json")
    answers = compare(results.read(RESULTS / "evidence.csv"), plan)
    columns = {
        "f^l: 1 labelled": ("linear_probe", "1", "dice"),
        "all": ("linear_probe", "all", "dice"),
        "all levels: 1": ("levels_probe", "1", "dice"),
        "all ": ("levels_probe", "all", "dice"),
        "purity: f^l": ("clustering", "", "neighbour_purity"),
        "all levels": ("levels_clustering", "", "neighbour_purity"),
        "collapse": ("levels_clustering", "", "embedding_collapse"),
        "carried: affine": ("propagation", "", "dice_affine"),
        "whole": ("propagation", "", "dice_after"),
        "rotation left, degrees": ("rotation", "", "angle_after"),
        "fine-tuned: 1": ("fine_tuning_gentle", "1", "dice"),
        "10": ("fine_tuning_gentle", "10", "dice"),
        "10: steps to 90 %": ("fine_tuning_gentle", "10", "steps_to_90_percent"),
    }
    data = "ixi_brain"
    asked = {head: Question(data, data, *rest) for head, rest in columns.items()}
    shown = {head: answers[question] for head, question in asked.items() if question in answers}
    arms = [arm for arm in plan["arms"] if any(arm in found for found in shown.values())]
    if not arms:
        return "None of the arms was run yet."
    rows = []
    for arm in arms:
        seeds = max(found[arm].seeds for found in shown.values() if arm in found)
        cells = (cell(found.get(arm), DIGITS.get(columns[head][-1], 3)) for head, found in shown.items())
        rows.append([f"`{arm}`", str(seeds), *cells])
    told = "; ".join(f"`{arm}`: {plan['arms'][arm]['description']}" for arm in arms)
    tests = "`*`: p < 0.05 against `places_and_matching` (fine-tuning: against `random`), paired by seed and subject."
    return table(["arm", "seeds", *shown], rows) + f"\n\n{tests} Arms: {told}."


def whole_scans() -> str:
    """Of the evidence: what pooled features tell of whole scans."""
    path = RESULTS / "scan_level.json"
    return scan_level.markdown(read_json(path) if path.is_file() else {})


def kept(name: str, number: int = 0) -> Callable[[], str]:
    """
    A table as the command that measured it wrote it.

    Args:
        name: of the file among the results, without ``.md``.
        number: of the table in it.
    """

    def made() -> str:
        parts = (RESULTS / f"{name}.md").read_text(encoding="utf-8").split("\n\n")
        return [part.strip() for part in parts if part.startswith("|")][number]

    return made


DOCUMENTS: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {"matching": matching, "fine-tuning": fine_tuned},
    "bundle/docs/README.md": {"matching": matching_card},
    "docs/evidence.md": {
        "evidence": evidence,
        "few labels": lambda: few_labels(RESULTS / "few_labels.csv", "people held back"),
        "purity": lambda: purity(RESULTS),
        "across": lambda: across(RESULTS),
        "whole scans": whole_scans,
    },
    "docs/choices.md": {
        "few labels, for the choice": lambda: few_labels(RESULTS / "few_labels_choosing.csv", "choosing people"),
    },
    "docs/comparison.md": {
        name.replace("_", " "): kept(f"comparison_held_back_{name}")
        for name in (
            "hippocampus",
            "hippocampus_quick",
            "heads",
            "heads_quick",
            "heads_4mm",
            "ct",
            "ct_6mm",
            "hearts",
            "atlases",
        )
    },
    "docs/annotator.md": {"hippocampus": kept("carried_hippocampus_0")},
    "docs/robustness.md": {
        "motions": kept("robustness"),
        "pointed out": kept("doubtful", 0),
        "areas": kept("doubtful", 1),
        "mirror images": kept("doubtful", 3),
    },
}


def updated(document: str) -> str:
    """
    The text of a document with its tables made anew.

    Raises:
        InputError: when the two comments of a table are not there.
    """
    path = REPOSITORY / document
    text = path.read_text(encoding="utf-8")
    for name, made in DOCUMENTS[document].items():
        pattern = re.compile(rf"(<!-- {name}: .*? -->\n).*?(<!-- {name} ends -->)", re.DOTALL)
        place = pattern.search(text)
        if place is None:
            raise InputError(
                f"{path} has no place for the table '{name}': add <!-- {name}: --> and <!-- {name} ends -->"
            )
        text = f"{text[: place.end(1)]}{made()}\n{text[place.start(2) :]}"
    return text


def main() -> None:
    """Write every document, and the scores of ``metadata.json``."""
    for document in DOCUMENTS:
        text = updated(document)
        (REPOSITORY / document).write_text(text, encoding="utf-8")
        print(f"tables written: {document}")
    metadata = BUNDLE / "configs" / "metadata.json"
    text = json.dumps({"eval_metrics": eval_metrics()}, indent=4)[1:-1].strip()
    whole = re.sub(r'"eval_metrics": \{[^}]*\}', text, metadata.read_text(encoding="utf-8"))
    metadata.write_text(whole, encoding="utf-8")


if __name__ == "__main__":
    main()
