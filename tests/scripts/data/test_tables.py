# SPDX-License-Identifier: Apache-2.0

"""Tables as spreadsheets of several countries write them: read alike, or refused with a remedy that helps."""

from __future__ import annotations

import pytest
from scripts.data.tables import number
from scripts.errors import InputError
from scripts.finetuning import read_table

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
