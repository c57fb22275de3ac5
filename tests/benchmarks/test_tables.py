# SPDX-License-Identifier: Apache-2.0

"""The tables of the documents say what the results say."""

from __future__ import annotations

import json

import pytest
import tables
from evidence import results
from evidence.plan import Unit
from evidence.results import Value
from scripts.errors import InputError


@pytest.mark.parametrize("document", tables.DOCUMENTS)
def test_documents_are_what_the_results_say(document):
    """If not: ``python benchmarks/tables.py``."""
    assert tables.updated(document) == (tables.REPOSITORY / document).read_text(encoding="utf-8")


def test_the_metadata_has_the_scores():
    metadata = json.loads((tables.BUNDLE / "configs" / "metadata.json").read_text(encoding="utf-8"))
    assert metadata["eval_metrics"] == tables.eval_metrics()
    assert len(metadata["eval_metrics"]) == 6


def test_a_document_without_a_place_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "REPOSITORY", tmp_path)
    (tmp_path / "README.md").write_text("nothing\n")
    with pytest.raises(InputError, match=r"README\.md has no place for the table 'matching'"):
        tables.updated("README.md")


def test_arms_and_ways_that_were_run_are_shown(tmp_path, monkeypatch):
    """What was not run is left out or empty."""
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    assert tables.evidence() == "None of the arms was run yet."
    choosing = tmp_path / "few_labels_choosing.csv"
    assert tables.few_labels(choosing, "choosing people") == "Not run yet."
    unit = Unit("ixi_brain", "random", "0", "ixi_brain", "levels_probe", "1")
    results.append(tmp_path / "evidence.csv", unit, [Value("dice", "x", 0.25), Value("dice", "y", 0.75)])
    found = tables.evidence()
    assert "| arm | seeds | all levels: 1 |\n|---|---|---|\n| `random` | 1 | 0.500 |" in found
    assert "`random`: random initialisation" in found
    rotation = [Value("angle_before", "x", 20), Value("angle_after", "x", 4.26), Value("angle_after", "y", 6)]
    results.append(tmp_path / "evidence.csv", unit._replace(measure="rotation", labelled=""), rotation)
    tuned = [Value("dice", "x", 0.5), Value("dice_at_step", "40", 0.45), Value("steps_to_90_percent", "", 40)]
    results.append(tmp_path / "evidence.csv", unit._replace(measure="fine_tuning_gentle", labelled="10"), tuned)
    found = tables.evidence()
    assert "| arm | seeds | all levels: 1 | rotation left, degrees | 10 | 10: steps to 90 % |" in found
    assert "| `random` | 1 | 0.500 | 5.1 | 0.500 | 40 |" in found
    cases = [Value("dice", str(case), 0.5 + 0.01 * case) for case in range(8)]
    scratch = unit._replace(measure="fine_tuning_gentle")
    results.append(choosing, scratch, cases)
    better = [case._replace(value=case.value + 0.1) for case in cases]
    results.append(choosing, scratch._replace(arm="shipped"), better)
    found = tables.few_labels(choosing, "choosing people")
    assert "| heads, Dice, choosing people: labelled | 1 |" in found
    assert "| 0.535 |" in found
    assert "| 0.635 * |" in found
