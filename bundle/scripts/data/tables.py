# SPDX-License-Identifier: Apache-2.0
"""Tables as spreadsheets write them: separated by commas, semicolons or tabs, and read without guessing."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import write_text

SEPARATORS = ",;\t"
DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")


def read_text(path: str | Path) -> str:
    """
    A text file in UTF-8, with a byte order mark or without, or in UTF-16.

    Raises:
        ValueError: for another encoding, or no text.
    """
    content = Path(path).read_bytes()
    try:
        text = content.decode(json.detect_encoding(content))
    except UnicodeDecodeError as error:
        raise ValueError("it is not in UTF-8: save it as CSV in UTF-8") from error
    if "\0" in text:
        raise ValueError("it is no text")
    return text


def split_rows(text: str) -> tuple[str, list[list[str]]]:
    """
    The rows of a table; those without an entry are left out.

    Args:
        text: of the table; Excel's first line ``sep=;`` counts.

    Returns:
        its separator, the most frequent one of the first row; and the entries of each row, without blanks around them.

    Raises:
        ValueError: for quotes that do not close.
    """
    text = text.lstrip("\r\n")
    said = re.match(r"sep=(.)[ \t]*[\r\n]+", text)
    text = text[said.end() :] if said else text
    separator = said[1] if said else max(SEPARATORS, key=re.split(r"[\r\n]", text, maxsplit=1)[0].count)
    try:
        lines = csv.reader(io.StringIO(text, newline=None), delimiter=separator, skipinitialspace=True, strict=True)
        rows = [[cell.strip() for cell in row] for row in lines]
    except csv.Error as error:
        raise ValueError(str(error)) from error
    return separator, [row for row in rows if any(row)]


def check_widths(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """
    Refuse rows with more entries than the head names: a separator within an entry moves those behind it.

    Args:
        head: names of the columns.
        rows: below it.

    Raises:
        ValueError: naming the first one.
    """
    for number, row in enumerate(rows, start=1):
        if any(row[len(head) :]):
            raise ValueError(
                f"row {number} ({row[0]}) has {len(row)} entries for {len(head)} columns: put entries that hold the "
                "separator in quotes, and write decimals with a point"
            )


def read_own(path: Path, first: str) -> list[dict[str, str]]:
    """
    The lines of a table that a run wrote, also where a spreadsheet has saved it again.

    Args:
        path: of the table.
        first: name of its first column.

    Returns:
        one dictionary a line, as they were written, decimal commas turned back; none where there is no such file.

    Raises:
        InputError: for a file that is no such table any more.
    """
    if not path.is_file():
        return []
    try:
        text = read_text(path)
        head = re.split(r"[\r\n]", text, maxsplit=1)[0]
        separator = max(SEPARATORS, key=head.count)
        lines = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, restval="")
        if (lines.fieldnames or [""])[0] != first:
            raise ValueError(f"it does not begin with the column '{first}'")
        return [
            {k: v.replace(",", ".") if separator != "," and DECIMAL_COMMA.fullmatch(v) else v for k, v in line.items()}
            for line in lines
        ]
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(
            f"{path} is not as a run wrote it ({error}): save it as CSV in UTF-8, or move it elsewhere"
        ) from error


def write_own(rows: Iterable[Mapping[str, Any]], path: Path, columns: Sequence[str] | None = None) -> None:
    """
    Write a table that :func:`read_own` reads, completely or not at all.

    Args:
        rows: by column; what a row lacks stays empty.
        path: of the table.
        columns: which, in their order; None for all, as they come.
    """
    given = list(rows)
    names = columns or list(dict.fromkeys(name for row in given for name in row))
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, names, restval="", extrasaction="ignore", lineterminator="\n")
    table.writeheader()
    table.writerows(given)
    write_text(text.getvalue(), path)


def number(text: str) -> float:
    """
    Raises:
        ValueError: for what is no number, with the remedy for a decimal comma.
    """
    try:
        return float(text)
    except ValueError:
        comma = "; write decimals with a point" if DECIMAL_COMMA.fullmatch(text) else ""
        raise ValueError(f"'{text}' is no number{comma}") from None
