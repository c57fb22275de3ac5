# SPDX-License-Identifier: Apache-2.0

"""The page of label maps that were carried over: sorted by doubt, with contours, self-contained, nothing unescaped."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from scripts.data import record_results
from scripts.evaluation.report import CarriedPage
from scripts.evaluation.report.carried_page import colour, contours, most_doubtful
from scripts.matching.vote_labels import COLUMNS
from support import write_nifti

SIZE = (20, 16, 12)
EVIL = "a<b>&"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three results: a doubtful one of an evil name, a sure one, a corrected one; and a line whose file is gone."""
    label = np.zeros(SIZE, np.uint16)
    label[4:9, 4:12, 3:9], label[12:17, 4:12, 3:9] = 500, 7
    lines = {
        EVIL: ("3", "0.4000", "0.3000", "12.0", "yes"),
        "sure": ("3", "0.9000", "0.8000", "0.0", "no"),
        "mended": ("", "1.0000", "", "", "corrected"),
        "gone": ("3", "0.1000", "0.1000", "0.0", "yes"),
    }
    affine = np.diag([-1.0, 1.0, 2.0, 1.0])  # towards the left
    image = np.random.default_rng(0).random(SIZE).astype(np.float32)
    for name in (EVIL, "sure", "mended"):
        write_nifti(tmp_path / "scans" / f"{name}.nii.gz", image, affine)
        write_nifti(tmp_path / "out" / f"{name}.nii.gz", label, affine)
        if name != "mended":
            write_nifti(tmp_path / "out" / "confidence" / f"{name}.nii.gz", np.full(SIZE, 0.5, np.float32), affine)
    out = tmp_path / "out"
    record_results(str(out), {name: [str(tmp_path / "scans" / f"{name}.nii.gz")] for name in lines})
    with (out / "propagation.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows([name, *line] for name, line in lines.items())
    return out


def test_the_page(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    CarriedPage(str(folder), pixels=60).completed(None)  # type: ignore[arg-type]
    page = (folder / "carried.html").read_text()
    assert re.findall(r"<h3>(.*?)</h3>", page) == ["1. a&lt;b&gt;&amp;", "2. sure", "3. mended"]
    first = page[page.index("<ol>") : page.index("</ol>")]
    assert first.count("<li>") == 2  # what is corrected needs nothing more
    assert "no match can be trusted" in first
    assert "12 % of the scan lies beyond" in first
    assert EVIL not in page
    assert "$" not in page
    assert page.count("data:image/") == page.count("<img") == 3 * (2 + 2 + 1)  # the corrected one has no doubt
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert f"rgb{colour(1)}" in page
    assert "\u25a0</span> 7 " in page
    said = capsys.readouterr().out
    assert f"correct first: {EVIL}, sure; put" in said
    assert str(folder / "corrected") in said


def test_contours_have_the_colour_of_their_structure_and_doubt_lies_within() -> None:
    structures = np.zeros(SIZE, np.int64)
    structures[4:9, 4:12, 3:9], structures[12:17, 4:12, 3:9] = 1, 2
    grey, doubt = np.full(SIZE, 0.2), np.ones(SIZE)
    axial = np.asarray(contours(grey, structures, [1, 1, 1], 20, [10, 8, 6], doubt)["axial"]).astype(int)
    assert axial.shape == (16, 20, 3)
    column = axial[8]  # the patient's right, the end of the first axis, is on the left
    place = {index: column[19 - index] for index in range(20)}
    np.testing.assert_array_equal(place[4], colour(1))
    np.testing.assert_array_equal(place[12], colour(2))
    assert place[6][0] > place[6][2] + 50  # orange inside
    assert place[10][0] == place[10][2] == 51  # grey between
    assert len({colour(number) for number in range(1, 60)}) == 59


def test_the_most_doubtful_place_is_inside_a_structure() -> None:
    structures = np.zeros(SIZE, np.int64)
    structures[2:18, 4:12, 3:9] = 1
    confidence = np.ones(SIZE)
    confidence[3:6] = 0.1
    confidence[:, :2] = 0  # not where nothing is labelled
    place = most_doubtful(confidence, structures, [1, 1, 1])
    assert structures[tuple(place)] == 1
    assert place[0] in range(2, 7)
