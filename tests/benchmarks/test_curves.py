# SPDX-License-Identifier: Apache-2.0

"""The course of trainings that went on from each other is drawn as one."""

from __future__ import annotations

import curves
import pytest
from PIL import Image
from scripts.errors import InputError

TABLE = "period,epoch,places,ncc_after\n1,1,8,\n1,2,7,0.5\n2,1,6,\n2,2,5,0.6\n"


def test_epochs_are_counted_on(tmp_path):
    (tmp_path / "training.csv").write_text(TABLE)
    rows = curves.course_of(tmp_path / "training.csv")
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert [row["places"] for row in rows] == [8, 7, 6, 5]
    assert [row.get("ncc_after") for row in rows] == [None, 0.5, None, 0.6]
    curves.main(["--course", str(tmp_path / "training.csv"), "--out", str(tmp_path / "curves.png")])
    with Image.open(tmp_path / "curves.png") as drawn:
        assert min(drawn.size) > 100


@pytest.mark.parametrize("text", [None, "period,epoch,places\n", "epoch,places\n1,8\n"])
def test_what_is_no_such_table_is_refused(tmp_path, text):
    if text is not None:
        (tmp_path / "training.csv").write_text(text)
    with pytest.raises(InputError, match=r"training\.csv"):
        curves.course_of(tmp_path / "training.csv")
