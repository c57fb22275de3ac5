# SPDX-License-Identifier: Apache-2.0
"""Cases whose class stands in a table: checked before any training starts, drawn equally often."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.find_scans import SubjectKey, find_scans
from ..data.tables import check_widths, read_text, split_rows
from ..errors import InputError, check_flags, refuse_or_leave_out

SHOWN = 5
"""Names listed in a message, of many."""
NO_VALUE = ("", "NA", "NaN", "nan")
"""Entries of a target column that are none, as R and pandas write them; elsewhere they may be names."""


def read_table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """
    Read some columns of a CSV table, see :func:`~scripts.data.tables.split_rows`.

    Args:
        path: of the table; its first line names the columns.
        columns: names.

    Returns:
        one dictionary a row, of texts without blanks around them.

    Raises:
        InputError: for a file that is missing, is no CSV table, has no rows, or lacks a column or has it twice.
    """
    if not path.is_file():
        raise InputError(f"table {path} does not exist: correct 'file' of the setting table, or copy it there")
    try:
        _, found = split_rows(unicodedata.normalize("NFC", read_text(path)))
        names, *rows = found or [[]]
        check_widths(names, rows)
    except (OSError, ValueError) as error:
        raise InputError(f"table {path} cannot be read as CSV: {error}") from error
    for column in columns:
        if column not in names:
            raise InputError(f"table {path} has no column '{column}': its columns are {', '.join(names) or 'none'}")
        if names.count(column) > 1:
            raise InputError(f"table {path} has {names.count(column)} columns '{column}': rename all but one")
    if not rows:
        raise InputError(f"table {path} has no rows below its head")
    places = {column: names.index(column) for column in columns}
    return [
        {column: _entry(row[place]) if place < len(row) else "" for column, place in places.items()} for row in rows
    ]


def _entry(text: str) -> str:
    """A table's entry; BIDS writes ``n/a`` for none."""
    return "" if text == "n/a" else text


def as_value(value: object) -> str:
    """A table's value as a text to compare: 1, "1" and "1.0" are the same."""
    text = str(value).strip()
    try:
        return f"{float(text):.15g}"
    except ValueError:
        return text


def numbers_of_values(classes: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """
    Args:
        classes: one dictionary a class: ``name`` and the ``values`` that mean it in the table.

    Returns:
        number of the class, from 0, by value.

    Raises:
        InputError: for fewer than two classes, one without values, or a value of two classes.
    """
    if len(classes) < 2:
        raise InputError(f"a classification needs two classes or more, not {len(classes)}: correct the setting classes")
    numbers: dict[str, int] = {}
    for number, entry in enumerate(classes):
        if not entry.get("values") or not isinstance(entry["values"], list):
            raise InputError(f"class {entry.get('name')} needs a list of values: correct the setting classes")
        for value in map(as_value, entry["values"]):
            if numbers.setdefault(value, number) != number:
                raise InputError(f"value '{value}' belongs to two classes: correct the setting classes")
    return numbers


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def classified_cases(
    dataset_dir: str,
    table: Mapping[str, str],
    classes: Sequence[Mapping[str, Any]],
    subject_key: SubjectKey = None,
    skip_bad: bool = False,
    workers: int = 2,
    layout: Mapping[str, Any] | None = None,
    dry_run: bool = False,
    kind: str | None = None,
) -> list[dict[str, Any]]:
    """
    The scans of a data set whose subject has a class in a table.

    Args:
        dataset_dir: folder of scans, see :func:`~scripts.data.find_scans`.
        table: ``file`` (path below the folder), and the columns ``id`` (subject) and ``target`` (class).
        classes: one dictionary a class: ``name`` and the ``values`` that mean it in the table.
        subject_key: what of a scan's path is looked up in the table's column ``id``.
        skip_bad: leave scans without a class out instead of refusing.
        workers: threads that read files.
        layout: how the data set lies on disk, see :mod:`scripts.data.folder_layouts`.
        dry_run: list the scans and what was left out, and end the program.
        kind: of scan to take, see :func:`~scripts.data.find_scans`.

    Returns:
        dictionaries with ``image``, ``subject``, ``label`` (number of the class, from 0) and ``classes`` (the same,
        from 1, in a list).

    Raises:
        InputError: for a table that cannot be used; listing every subject without a class.
    """
    check_flags({"skip_bad": skip_bad})
    numbers = numbers_of_values(classes)
    if not isinstance(table, Mapping) or set(table) != {"file", "id", "target"}:
        raise InputError(f"table must name a file, its column id and its column target, not {table}")
    path = Path(dataset_dir, table["file"])
    rows = read_table(path, [table["id"], table["target"]])
    scans = find_scans(
        dataset_dir,
        subject_key,
        dry_run,
        skip_bad=skip_bad,
        workers=workers,
        min_subjects=1,
        layout=layout,
        kind=kind,
        has_options=False,
    )
    found: dict[str, set[str]] = {}
    for row in rows:
        found.setdefault(row[table["id"]], set()).add(as_value(row[table["target"]]))
    names = [unicodedata.normalize("NFC", scan.get("listed_as", scan["subject"])) for scan in scans]
    counts = Counter(names)
    labels: dict[str, int] = {}
    problems = []
    for subject, count in counts.items():
        values = sorted(found.get(subject, ()))
        if len(values) == 1 and values[0] in numbers:
            labels[subject] = numbers[values[0]]
            continue
        if not values:
            what = f"has no row in {path} (its column {table['id']} reads {_shown(list(found))})"
            short = subject.lstrip("0")
            if short in found and subject.isdigit():
                what += f": write {subject} in place of {short} there, a spreadsheet has dropped the zeros"
        elif len(values) > 1:
            what = f"has contradicting rows in {path}: {table['target']} is {' and '.join(values)}"
        else:
            what = f"has {table['target']} '{values[0]}' in {path}, which is none of the classes' values"
        problems.append(f"subject {subject} ({count} scan{'s' * (count > 1)}) {what}")
    together: dict[str, set[str]] = {}  # subjects whose scans are copies of each other
    for scan, name in zip(scans, names, strict=True):
        together.setdefault(scan["subject"], set()).add(name)
    for several in together.values():
        if len({labels[name] for name in several if name in labels}) > 1:
            shown = " and ".join(sorted(name for name in several if name in labels))
            problems.append(f"subjects {shown} have copies of one scan, but several classes in {path}")
            labels = {name: number for name, number in labels.items() if name not in several}
    refuse_or_leave_out(problems, len(counts), "subjects", skip_bad)
    surplus = [subject for subject in found if subject not in counts]
    if surplus:
        print(f"{len(surplus)} subjects of {path} have no scan: {_shown(surplus)}", flush=True)
    return [
        {"image": scan["image"], "subject": scan["subject"], "label": number, "classes": [number + 1]}
        for scan, name in zip(scans, names, strict=True)
        if (number := labels.get(name)) is not None
    ]


def sampling_weights(cases: Sequence[Mapping[str, Any]]) -> list[float]:
    """
    Args:
        cases: dictionaries with ``label``.

    Returns:
        a weight each, by which all classes are drawn equally often.
    """
    counts = Counter(case["label"] for case in cases)
    return [1 / counts[case["label"]] for case in cases]
