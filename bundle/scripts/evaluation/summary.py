# SPDX-License-Identifier: Apache-2.0
"""What the measures of many pairs say together: means, structures, whether matching helped beyond chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

FEWEST_PERSON_PAIRS = 6
"""With five, not even all on one side give p < 0.05."""


def without_nan(value: Any) -> Any:
    """The same nested containers with None for every NaN, which JSON does not know."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and np.isnan(value) else value


def mean_found(values: Sequence[float]) -> float:
    """Mean without NaN; NaN of nothing."""
    found = [value for value in values if not np.isnan(value)]
    return float(np.mean(found)) if found else float("nan")


def mean_measures(pairs: Sequence[Mapping[str, Any]], measures: Sequence[str]) -> dict[str, float]:
    """
    Args:
        pairs: measures of each; those of labels may be missing.
        measures: names.

    Returns:
        the mean of each that a pair has.
    """
    found = {name: [row[name] for row in pairs if name in row] for name in measures}
    return {name: mean_found(values) for name, values in found.items() if values}


def structure_rows(
    pairs: Sequence[Mapping[str, Any]], structures: Mapping[str, Sequence[Any]], measures: Sequence[str]
) -> list[dict[str, Any]]:
    """
    Args:
        pairs: measures of each, ``<measure>:<structure>`` among them.
        structures: ``names``, ``groups`` and ``families``, see :func:`~scripts.evaluation.described_structures`.
        measures: names.

    Returns:
        for each structure found its codes, name, family and means.
    """
    rows = []
    for codes, name, family in zip(structures["groups"], structures["names"], structures["families"], strict=True):
        means = mean_measures(pairs, [f"{measure}:{name}" for measure in measures])
        found = {key.partition(":")[0]: value for key, value in means.items() if not np.isnan(value)}
        if found:
            rows.append({"codes": " ".join(map(str, codes)), "structure": name, "family": family, **found})
    return rows


def gains(pairs: Sequence[Mapping[str, Any]], measure: str) -> dict[str, Any]:
    """
    Did matching raise a measure? Both directions of a pair, and several scans of the same two persons, are averaged to
    one value first; then Wilcoxon's signed-rank test, two-sided. Pairs that share a person are not independent, so that
    p is a guide.

    Args:
        pairs: measures of each, and ``persons``.
        measure: ``<measure>_before`` and ``_after`` are compared.

    Returns:
        ``person_pairs``, in how many of them it is ``higher_after``, ``mean_gain``, and ``wilcoxon_p``, NaN with fewer
        than six; nothing where no pair has the measure.
    """
    from scipy.stats import wilcoxon

    by_persons: dict[Any, list[float]] = {}
    for row in pairs:
        gain = row.get(f"{measure}_after", np.nan) - row.get(f"{measure}_before", np.nan)
        if not np.isnan(gain):
            by_persons.setdefault(tuple(sorted(row["persons"])), []).append(gain)
    if not by_persons:
        return {}
    means = np.array([np.mean(values) for values in by_persons.values()])
    enough = len(means) >= FEWEST_PERSON_PAIRS and bool(means.any())
    return {
        "person_pairs": len(means),
        "higher_after": int((means > 0).sum()),
        "mean_gain": float(means.mean()),
        "wilcoxon_p": float(wilcoxon(means).pvalue) if enough else float("nan"),
    }
