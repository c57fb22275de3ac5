# SPDX-License-Identifier: Apache-2.0

"""Means, deviations and paired tests of the results, as Markdown."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import wilcoxon

from .plan import Unit
from .results import Value

Results = Mapping[Unit, Sequence[Value]]


class Question(NamedTuple):
    """What the arms are compared in."""

    pretrained_on: str
    data: str
    measure: str
    labelled: str
    quantity: str


class Answer(NamedTuple):
    """
    One arm's values: ``mean`` of all, ``deviation`` between the seeds (NaN with one), ``seeds``, ``cases`` of each
    seed, and the ``p`` of a Wilcoxon test against the reference, paired by seed and case (NaN where there are too few).
    """

    mean: float
    deviation: float
    seeds: int
    cases: int
    p: float


def paired_p(values: Mapping[Any, float], reference: Mapping[Any, float]) -> float:
    """Two-sided Wilcoxon signed-rank test over the cases that both have; NaN with fewer than six."""
    differences = np.array([values[case] - reference[case] for case in values if case in reference])
    differences = differences[np.isfinite(differences)]
    if len(differences) < 6 or not differences.any():
        return float("nan")
    with warnings.catch_warnings():  # ties are told by the size of p
        warnings.simplefilter("ignore")
        return float(wilcoxon(differences).pvalue)


def reference_of(plan: Mapping[str, Any], measure: str) -> str:
    """The arm that the others are tested against: the plan's, or the one it names for the measure."""
    return plan.get("references", {}).get(measure, plan["reference"])


def compare(results: Results, plan: Mapping[str, Any]) -> dict[Question, dict[str, Answer]]:
    """
    Args:
        results: complete units.
        plan: see :func:`~evidence.plan.read_plan`.

    Returns:
        for every question the answer of each arm, in the order of the results. Where an arm was not pre-trained on the
        set it is measured on, the reference is the one that was.
    """
    found: dict[Question, dict[str, dict[tuple[str, str], float]]] = {}
    for unit, values in results.items():
        for value in values:
            if value.quantity == "dice_at_step":
                continue
            question = Question(unit.pretrained_on, unit.data, unit.measure, unit.labelled, value.quantity)
            arm = found.setdefault(question, {}).setdefault(unit.arm, {})
            arm[unit.seed, value.case] = value.value
    answers = {}
    for question, arms in found.items():
        at_home = found.get(question._replace(pretrained_on=question.data), {})
        answers[question] = _answers(arms, at_home.get(reference_of(plan, question.measure), {}))
    return answers


def _answers(
    arms: Mapping[str, Mapping[tuple[str, str], float]], reference: Mapping[tuple[str, str], float]
) -> dict[str, Answer]:
    answers = {}
    for arm, values in arms.items():
        seeds = list(dict.fromkeys(seed for seed, _ in values))
        means = [np.nanmean([value for (own, _), value in values.items() if own == seed]) for seed in seeds]
        deviation = float(np.std(means, ddof=1)) if len(seeds) > 1 else float("nan")
        p = paired_p(values, reference)  # NaN for the reference itself
        answers[arm] = Answer(float(np.mean(means)), deviation, len(seeds), len(values) // len(seeds), p)
    return answers


def table(heads: list[str], rows: list[list[str]]) -> str:
    """Markdown."""
    lines = [" | ".join(line) for line in (heads, *rows)]
    return "\n".join([f"| {lines[0]} |", "|" + "---|" * len(heads), *(f"| {line} |" for line in lines[1:])])


def markdown(results: Results, plan: Mapping[str, Any]) -> str:
    """One table a set and measure: a row an arm, a column a number of labels and quantity."""
    comparison = compare(results, plan)
    if not comparison:
        return "No results yet.\n"
    parts = [
        "Mean (and standard deviation between seeds); `*`: Wilcoxon test against the arm named in the table's title, "
        "paired by seed and case, p < 0.05.\n"
    ]
    tables: dict[tuple[str, str, str], list[Question]] = {}
    for question in comparison:
        tables.setdefault(question[:3], []).append(question)
    for (source, data, measure), questions in tables.items():
        where, reference = data, reference_of(plan, measure)
        if source != data:
            where += f", pre-trained on {source}"
        against = f"`{reference}`" if source == data else f"`{reference}` of {data}"
        parts.append(f"### {where}: {measure.replace('_', ' ')} (against {against})\n")
        questions.sort(key=lambda q: (q.quantity, int(q.labelled) if q.labelled.isdigit() else 10**9))
        heads = [q.quantity.replace("_", " ") + (f", {q.labelled} labelled" if q.labelled else "") for q in questions]
        parts.append("| arm | seeds | " + " | ".join(heads) + " |")
        parts.append("|---|---|" + "---|" * len(questions))
        named = {arm for q in questions for arm in comparison[q]}
        for arm in [arm for arm in plan["arms"] if arm in named]:
            found = [comparison[q].get(arm) for q in questions]
            seeds = max(answer.seeds for answer in found if answer)
            parts.append(f"| {arm} | {seeds} | " + " | ".join(map(cell, found)) + " |")
        parts.append("")
    parts.append(
        "Arms: " + "; ".join(f"`{name}`: {about['description']}" for name, about in plan["arms"].items()) + "."
    )
    return "\n".join(parts) + "\n"


def cell(answer: Answer | None, digits: int = 3) -> str:
    """Mean, deviation and mark of an answer; empty where there is none."""
    if answer is None:
        return ""
    spread = "" if np.isnan(answer.deviation) else f" ({answer.deviation:.{digits}f})"
    return f"{answer.mean:.{digits}f}{spread}" + (" *" if answer.p < 0.05 else "")
