# SPDX-License-Identifier: Apache-2.0

"""The report's tables: structures, ranks, names, numbers, and the history that is read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from made_up_reports import DASH, OUTSIDE, Page, evaluation
from scripts.evaluation.report import (
    DOUBTFUL,
    change,
    measure_rows,
    named_pairs,
    pair_rows,
    ranking,
    read_history,
    short_names,
    structure_tables,
    table,
)


def rows_of_structures(count: int, families: int = 0) -> list[dict[str, Any]]:
    """Structures of growing Dice, in families."""
    return [
        {
            "structure": f"part{n:03d}",
            "family": f"family{n % families}" if families and n else "",
            "dice_before": 0.1,
            "dice_after": n / count,
        }
        for n in range(count)
    ]


def test_structures_are_sorted_and_folded_beyond_twenty() -> None:
    page = Page(structure_tables(rows_of_structures(148)))
    names = re.findall(r"part\d+", page.text)
    assert names == sorted(names, reverse=True)
    assert len(names) == 148
    assert len(page.all("details")) == 1
    assert page.text.index("128 more") > page.text.index(names[19])
    assert page.text.index("128 more") < page.text.index(names[20])
    assert len(Page(structure_tables(rows_of_structures(20))).all("details")) == 0
    assert structure_tables([]) == ""


def test_structures_are_grouped_as_the_data_set_says() -> None:
    """The groups' means in one table, best first, and each group's structures folded."""
    page = Page(structure_tables(rows_of_structures(61, families=3)))
    head = page.text.partition("20 structures")
    groups = re.findall(r"(family\d|others)(?=\d+ structure)", page.text)
    assert groups == ["family0", "family2", "family1", "others"]
    assert len(page.all("details")) == 4
    assert "others: 1 structure" in page.text
    assert change({"dice_before": 0.1, "dice_after": np.mean([n / 61 for n in range(3, 61, 3)])}, "dice") in page.text
    assert head[1]


def test_history_is_read_with_gaps_and_foreign_files_are_left(model: Path) -> None:
    assert read_history(str(model)) == [
        {"epoch": 1, "matching": 0.5, "ncc_before": 0.1, "ncc_after": 0.2},
        {"epoch": 2, "matching": 0.4},
    ]
    history = model.with_name("history.csv")
    for foreign in ("", "name,score\na,b\n", "step,loss\n1,2\n", "epoch,loss\n1,2,3\n"):
        history.write_text(foreign, encoding="utf-8")
        assert read_history(str(model)) == []


def test_ranking_takes_the_best_the_median_and_the_worst() -> None:
    pairs = [{"ncc_after": value} for value in (0.3, 0.9, float("nan"), 0.5, 0.7)]
    assert ranking(pairs) == {"Best": 1, "Median": 3, "Worst": 2}
    assert ranking([{"dice_after": 0.1, "ncc_after": 1}, {"dice_after": 0.2, "ncc_after": 0}]) == {
        "Best": 1,
        "Worst": 0,
    }
    assert ranking([{"dice_after": 0.1, "ncc_after": 1}, {"ncc_after": 1}]) == {"The only": 0}


def test_measures_tell_the_confidence_of_the_global_map(tmp_path: Path) -> None:
    """The summary had the means, and the page kept them to itself."""
    rows = {label: value for (label, _), value in measure_rows(evaluation(tmp_path, doubtful=True)[0])}
    assert rows["Agreement of the global map"] == "0.600"
    assert rows["Places that the global map explains (inliers)"] == "0.950"
    assert rows["Spread of these places (conditioning)"] == "0.400"
    rows = {label: value for (label, _), value in measure_rows(evaluation(tmp_path)[0])}
    assert not any("map explains" in label for label in rows)


def test_the_table_of_pairs_tells_what_is_doubted() -> None:
    names = {"fixed": "a.nii", "moving": "b.nii", "ncc_before": 0.1, "folded_percentage": 0.0}
    sure = {**names, "ncc_after": 0.9, "agreement": 0.81234, "inliers": 1.0, "look_at": "no", "doubts": ""}
    failed = {**names, "ncc_after": 0.2, "agreement": 0.3, "look_at": "yes", "doubts": OUTSIDE}
    head, rows = pair_rows([failed, sure])
    assert head == ["moving \u2192 fixed", "NCC", "folded, %", "agreement", "inliers", "match"]
    assert [row[3:] for row in rows] == [["0.812", "1.000", ""], ["0.300", DASH, (DOUBTFUL, OUTSIDE)]]
    plain = {**names, "ncc_after": 0.9}
    assert pair_rows([plain])[0] == head[:3]


def test_names_lose_the_common_folder() -> None:
    assert short_names(["/a/b/x/1.nii", "/a/b/y/1.nii"]) == {"/a/b/x/1.nii": "x/1.nii", "/a/b/y/1.nii": "y/1.nii"}
    assert short_names(["d/1.nii", "d/2.nii"]) == {"d/1.nii": "1.nii", "d/2.nii": "2.nii"}
    assert short_names(["0", "/a/1.nii"]) == {"0": "0", "/a/1.nii": "/a/1.nii"}
    assert named_pairs([{"fixed": "d/1.nii", "moving": "d/2.nii", "n": 1}]) == [
        {"fixed": "1.nii", "moving": "2.nii", "n": 1}
    ]


def test_table_rounds_escapes_and_marks_what_is_missing() -> None:
    text = table(["<a>"], [[("<b>", "<c>"), 0.01234, 1.23456, 12.3456, None, float("nan"), 7]], "numbers")
    values = re.findall(r"<td>(.*?)</td>", text)
    assert values == ["0.0123", "1.235", "12.3", DASH, DASH, "7"]
    assert not re.search(r"<[abc]>", text)


def test_change_needs_an_after() -> None:
    assert change({"error_before": 0.01234, "error_after": 12.3456}, "error") == "0.0123 → 12.3"
    assert change({"dice_before": 0.01234, "dice_after": 0.5}, "dice") == "0.012 → 0.500"
    assert change({"hd95_before": 14.04, "hd95_after": 8.0634}, "hd95") == "14.0 → 8.1"
    assert change({"dice_before": 0.1}, "dice") == change({"dice_after": float("nan")}, "dice") == DASH
