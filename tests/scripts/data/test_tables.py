# SPDX-License-Identifier: Apache-2.0

"""Tables as spreadsheets of several countries write them: read alike, or refused with a remedy that helps."""

from __future__ import annotations

import numpy as np
import pytest
from scripts.data import record_results, write_scan_table
from scripts.data.tables import number, read_own, write_own
from scripts.errors import InputError
from scripts.finetuning import read_table
from scripts.matching.match_table import put_rows
from support import write_nifti

ROWS = [{"id": "p1", "age": "62.5"}, {"id": "Müller", "age": "3"}]
PLAIN = "id,age\np1,62.5\nMüller,3\n"


def read(folder, content):
    path = folder / "table.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(path, ["id", "age"])


@pytest.mark.parametrize(
    "content",
    [
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\r"),
        "sep=;\r\n" + PLAIN.replace(",", ";"),
        "\n\n" + PLAIN.replace("\n", "\n\n"),
        PLAIN + ",\n , \n",
        PLAIN.replace("62.5", "62.5,").replace("3", "3,,"),
        PLAIN.encode("utf-16"),
        PLAIN.replace("ü", "u\u0308"),
        'name,age, id\n"Smith, John",62.5, "p1"\n, 3 ,Müller\n',
    ],
    ids=["CRLF", "CR", "sep=", "empty lines", "empty rows", "surplus commas", "UTF-16", "accents apart", "quotes"],
)
def test_one_table_in_many_spellings(tmp_path, content):
    assert read(tmp_path, content) == ROWS


REFUSED = {
    "Latin-1": (PLAIN.encode("latin-1"), "save it as CSV in UTF-8", PLAIN),
    "decimal commas": (PLAIN.replace("62.5", "62,5"), "write decimals with a point", PLAIN),
    "a comma in an entry": (
        "id,name,age\np1,Smith, John,62.5\nMüller,,3\n",
        r"row 1 \(p1\) has 4 entries for 3 columns: put entries that hold the separator in quotes",
        'id,name,age\np1,"Smith, John",62.5\nMüller,,3\n',
    ),
    "a column twice": ("id,age,id\np1,62.5,q1\n", "2 columns 'id': rename all but one", "id,age,other\np1,62.5,q1\n"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_be_read_wrongly_is_refused_until_it_is_mended(tmp_path, case):
    content, message, mended = REFUSED[case]
    with pytest.raises(InputError, match=message):
        read(tmp_path, content)
    assert read(tmp_path, mended)[0] == ROWS[0]


def test_numbers_with_a_decimal_comma():
    assert number("62.5") == 62.5
    with pytest.raises(ValueError, match="write decimals with a point"):
        number("62,5")
    with pytest.raises(ValueError, match=r"'old' is no number$"):
        number("old")


SAVED_AGAIN = {
    "semicolons": lambda text: text.replace(",", ";").encode(),
    "tabs": lambda text: text.replace(",", "\t").encode(),
    "byte order mark, CRLF": lambda text: text.replace("\n", "\r\n").encode("utf-8-sig"),
    "UTF-16": lambda text: text.encode("utf-16"),
}
SPOILT = {
    "Latin-1": lambda text: text.encode("latin-1"),
    "nothing": lambda text: b"",
    "no head": lambda text: b"x,y\n1,2\n",
}


@pytest.fixture
def run(tmp_path):
    """The tables of a run, one of whose scans has an accent; and what a run on other scans of these names does."""
    for name in "ab":
        write_nifti(tmp_path / name / "ü.nii", np.random.default_rng(0).random((6, 6, 6)))
    paths, out = [str(tmp_path / name / "ü.nii") for name in "ab"], tmp_path / "out"
    record_results(str(out), {"ü": [paths[0]]})
    write_scan_table(str(out), [{"image": paths[0]}])
    put_rows(out / "matches.csv", ("result", "ncc"), "ü", [{"ncc": "0.5"}])
    return out, {
        "results.csv": lambda: record_results(str(out), {"ü": [paths[1]]}),
        "scans.csv": lambda: write_scan_table(str(out), [{"image": paths[1]}], earlier="refuse"),
        "matches.csv": lambda: put_rows(out / "matches.csv", ("result", "ncc"), "b", [{"ncc": "0.25"}]),
    }


def save(path, change):
    path.write_bytes(change(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("saved", SAVED_AGAIN)
def test_tables_of_a_run_that_a_spreadsheet_has_saved(run, saved):
    """Before, results of other scans were written over, and lines were lost."""
    out, actions = run
    for name, action in actions.items():
        save(out / name, SAVED_AGAIN[saved])
        if name == "matches.csv":
            action()
            assert (out / name).read_text(encoding="utf-8") == "result,ncc\nü,0.5\nb,0.25\n"
        else:
            with pytest.raises(InputError, match="another --output_dir"):
                action()


@pytest.mark.parametrize("spoilt", SPOILT)
def test_tables_of_a_run_that_cannot_be_read_are_refused_until_they_are_mended(run, tmp_path, spoilt):
    out, actions = run
    for name, action in actions.items():
        kept = (out / name).read_text(encoding="utf-8")
        save(out / name, SPOILT[spoilt])
        with pytest.raises(InputError, match=f"{name} is not as a run wrote it .*in UTF-8, or move it elsewhere"):
            action()
        (out / name).rename(tmp_path / name)
        action()
        (out / name).write_text(kept, encoding="utf-8")


def test_decimal_commas_that_a_spreadsheet_has_made(tmp_path):
    (tmp_path / "t.csv").write_text("result;ncc\nx,y;0,5\n")
    assert read_own(tmp_path / "t.csv", "result") == [{"result": "x,y", "ncc": "0.5"}]


def test_a_table_is_read_as_it_was_written(tmp_path):
    """What a row lacks is empty; columns that are not asked for are left out."""
    rows = [{"name": "ä, b", "dice": 0.5}, {"name": "c", "folded": 1}]
    write_own(rows, tmp_path / "all.csv")
    assert (tmp_path / "all.csv").read_bytes().count(b"\r") == 0
    expected = [{"name": "ä, b", "dice": "0.5", "folded": ""}, {"name": "c", "dice": "", "folded": "1"}]
    assert read_own(tmp_path / "all.csv", "name") == expected
    write_own(rows, tmp_path / "some.csv", ["name"])
    assert read_own(tmp_path / "some.csv", "name") == [{"name": "ä, b"}, {"name": "c"}]
