# SPDX-License-Identifier: Apache-2.0
"""Files of landmarks, read and written again with other positions: of 3D Slicer (.mrk.json, .fcsv), and CSV."""

from __future__ import annotations

import copy
import csv
import io
import itertools
import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..data.tables import check_widths, number, read_text, split_rows
from ..errors import InputError

TABLE = "points.csv"
"""Of all landmarks that a run carries, beside its results."""
ENDINGS = (".mrk.json", ".fcsv", ".csv")
SPACES = {"RAS": np.array([1.0, 1.0, 1.0]), "LPS": np.array([-1.0, -1.0, 1.0])}
"""Signs that take a position to RAS and back."""
FCSV_NUMBERS = {"0": "RAS", "1": "LPS"}
"""What the numbers in older files of 3D Slicer mean; 2 are voxels, which say nothing without their scan."""
OF_POINTS = ("fiducial", "line", "angle", "curve", "closedcurve", "pointset")
"""Markups of 3D Slicer that are their points; planes and boxes have axes besides."""
UNNAMED = 2
"""Columns at the end of a row that newer files of 3D Slicer (.fcsv) do not name."""
NAME_COLUMNS = ("label", "name", "point", "id")
UNPLACED = ("0", "0.0", "false")
"""In the column ``defined`` of tables of 3D Slicer: of landmarks that are not placed yet, at 0, 0, 0."""
COORDINATES: tuple[tuple[str, str | None], ...] = (("xyz", None), ("ras", "RAS"), ("lps", "LPS"))
"""Names of columns, and the space that they say."""


@dataclass
class PointFile:
    """
    The landmarks of a file.

    Args:
        names: of the landmarks; their numbers, from 1, where the file names none.
        positions: ``(K, 3)`` in millimetres, RAS.
        ending: of the file's name.
        text: positions like these to the content of such a file: the same format, space, names and remarks.
    """

    names: list[str]
    positions: np.ndarray
    ending: str
    text: Callable[[np.ndarray], str]


def read_points(path: str, space: str | None = None) -> PointFile:
    """
    Read landmarks.

    Args:
        path: a markups file of 3D Slicer (``.mrk.json``, ``.fcsv``), or ``.csv`` with a row a landmark: the columns x,
            y, z (or r, a, s; or l, p, s) and perhaps one of names, "label", "name", "point" or "id", and 3D Slicer's
            "defined", 0 for a landmark that is not placed; without a header three numbers, or a name and three numbers.
        space: "RAS" or "LPS", for a file that does not say it. 3D Slicer's do; CSV by its columns' names, or by a line
            ``# CoordinateSystem = RAS``.

    Raises:
        InputError: for a file that cannot be read, or does not say its space, or another one.
    """
    if space is not None and space not in SPACES:
        raise InputError(f"points_space is 'RAS' or 'LPS', not '{space}'")
    ending = next((end for end in ENDINGS if path.lower().endswith(end)), None)
    if ending is None:
        raise InputError(f"{path} is no file of landmarks: they are read from {', '.join(ENDINGS)}")
    try:
        content = unicodedata.normalize("NFC", read_text(path))
        found = _markups(content, ending) if ending == ".mrk.json" else _table(content, ending, space)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else error
        raise InputError(f"{path} cannot be read as landmarks: {reason}") from error
    if not len(found.positions):
        raise InputError(f"{path} holds no landmark: leave it out, or place some and save it again")
    if not np.isfinite(found.positions).all():
        row = int(np.flatnonzero(~np.isfinite(found.positions).all(axis=1))[0])
        raise InputError(f"{path}: the position of landmark {found.names[row]} is not finite: correct it there")
    return found


def _markups(content: str, ending: str) -> PointFile:
    """Points of a markups file of 3D Slicer; those that are not placed yet stay as they are."""
    whole = json.loads(content)
    signs, points = [], []
    for markup in whole["markups"]:
        kind = str(markup.get("type", "Fiducial"))
        if kind.lower() not in OF_POINTS:
            raise ValueError(f"a markup of type {kind} is more than its points; save lists of points")
        if markup.get("coordinateUnits", "mm") not in ("mm", ["mm", "mm", "mm"]):
            raise ValueError(f"its unit is {markup['coordinateUnits']}, not mm")
        system = str(markup.get("coordinateSystem"))
        if system not in SPACES:
            raise ValueError(f"its coordinateSystem is {system}, not RAS or LPS")
        for point in markup["controlPoints"]:
            if point.get("positionStatus", "defined") == "defined":
                points.append(point)
                signs.append(SPACES[system])
    positions = np.array([point["position"] for point in points], dtype=float).reshape(-1, 3)

    def text(moved: np.ndarray) -> str:
        changed = copy.deepcopy(whole)
        left = iter((moved * np.array(signs)).tolist())
        for markup in changed["markups"]:
            markup.pop("measurements", None)  # lengths and angles that 3D Slicer takes again
            for point in markup["controlPoints"]:
                point.pop("associatedNodeID", None)  # the scan that they lay on
                if point.get("positionStatus", "defined") == "defined":
                    point["position"] = next(left)
        return json.dumps(changed, indent=2) + "\n"

    names = [str(point.get("label") or place) for place, point in enumerate(points, start=1)]
    names = [unicodedata.normalize("NFC", name) for name in names]
    return PointFile(names, positions * np.array(signs).reshape(-1, 3), ending, text)


def _table(content: str, ending: str, asked: str | None) -> PointFile:
    """Points of a ``.fcsv`` or ``.csv`` file, a row each; those that are not placed yet stay as they are."""
    lines = [line for line in content.splitlines() if line.strip()]
    remarks = [line for line in lines if _is_remark(line)]
    remark = "\n".join(remarks)
    found = re.search(r"coordinatesystem\s*[=:]\s*(\w+)", remark, re.IGNORECASE)
    said = None if found is None else FCSV_NUMBERS.get(found[1], found[1].upper())
    if said is not None and said not in SPACES:
        raise ValueError(f"its CoordinateSystem is {found and found[1]}, not RAS or LPS")
    separator, rows = split_rows("\n".join(line for line in lines if line not in remarks))
    if ending == ".csv":
        _check_remarks(lines)
    if not rows:
        return PointFile([], np.zeros((0, 3)), ending, lambda moved: content)
    listed = re.search(r"columns\s*=\s*(.+)", remark)
    header: list[list[str]] = []
    if ending == ".fcsv":
        names = (listed[1] if listed else "id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc").split(",")
    elif any(_is_number(cell) for cell in rows[0]):
        _check_unnamed(rows[0], remarks)
        names = ["x", "y", "z"] if len(rows[0]) == 3 and _is_number(rows[0][0]) else ["label", "x", "y", "z"]
        if len(rows[0]) != len(names):
            raise ValueError("without a line of column names it has three numbers a row, or a name and three numbers")
    else:
        header, rows = rows[:1], rows[1:]
        names = header[0]
    names = [name.strip().lower() for name in names]
    columns, by_columns = _coordinates(names)
    check_widths([*names, *([""] * UNNAMED if ending == ".fcsv" else [])], rows)
    if by_columns is not None and said is not None and by_columns != said:
        raise ValueError(f"its columns say {by_columns}, its CoordinateSystem {said}")
    said = said or by_columns
    if ending == ".csv" and said is not None and asked is not None and said != asked:
        raise ValueError(f"it says that it is in {said}, but points_space is {asked}: leave --points_space out")
    space = said or asked
    if space is None:
        raise ValueError("it does not say its space: pass --points_space RAS, or --points_space LPS")
    signs = SPACES[space]
    defined = names.index("defined") if "defined" in names else len(names)
    placed = {
        place: row
        for place, row in enumerate(rows, start=1)
        if not any(cell.lower() in UNPLACED for cell in row[defined : defined + 1])
    }
    short = next((place for place, row in placed.items() if len(row) <= max(columns)), None)
    if short is not None:
        raise ValueError(f"landmark {short} has {len(rows[short - 1])} columns, {max(columns) + 1} are needed")
    positions = np.array([[number(row[column]) for column in columns] for row in placed.values()]).reshape(-1, 3)
    named = next((names.index(name) for name in NAME_COLUMNS if name in names), None)
    labels = [
        (row[named] if named is not None and named < len(row) else "") or str(place) for place, row in placed.items()
    ]

    def text(moved: np.ndarray) -> str:
        written = io.StringIO()
        written.writelines(f"{line}\n" for line in remarks)
        writer = csv.writer(written, delimiter=separator, lineterminator="\n")
        filled = copy.deepcopy(rows)
        for place, position in zip(placed, moved * signs, strict=True):
            for column, value in zip(columns, position, strict=True):
                filled[place - 1][column] = f"{value:.4f}"
        writer.writerows([*header, *filled])
        return written.getvalue()

    return PointFile(labels, positions * signs, ending, text)


def _coordinates(names: Sequence[str]) -> tuple[list[int], str | None]:
    """Which columns are the coordinates, and the space that their names say."""
    for letters, space in COORDINATES:
        if all(letter in names for letter in letters):
            if any(names.count(letter) > 1 for letter in letters):
                raise ValueError(f"it has a column of {', '.join(letters)} twice: rename one")
            return [names.index(letter) for letter in letters], space
    raise ValueError(f"its columns are {', '.join(names)}: x, y, z (or r, a, s; or l, p, s) are needed")


def _is_remark(line: str) -> bool:
    return line.lstrip().startswith("#")


def _check_remarks(lines: Sequence[str]) -> None:
    """Refuse lines of a ``.csv`` that begin with # below its first row: landmarks of such names, or left out."""
    table = itertools.dropwhile(lambda line: _is_remark(line) or line.startswith("sep="), lines)
    row = next(filter(_is_remark, table), None)
    if row is not None:
        raise ValueError(f"its line '{row}' begins with # below the first row: write it without #, or above that row")


def _check_unnamed(first: Sequence[str], remarks: Sequence[str]) -> None:
    """Refuse names or numbers of columns, and landmarks, that a table without a header would hide."""
    if list(first[-3:]) == ["0", "1", "2"]:
        names = "label,x,y,z" if len(first) > 3 else "x,y,z"
        raise ValueError(
            f"its first line has numbers of columns, 0, 1, 2: write {names} there, or above it, if it is a landmark"
        )
    for line in remarks:
        named = set(re.split(r"[\s#=,;\"]+", line.lower()))
        cells = re.split(r"[,;\t]", line)
        if any(named >= set(letters) for letters, _ in COORDINATES):
            raise ValueError(
                f"its line '{line}' names the columns, but begins with #: write only their names there, without #"
            )
        if len(cells) in (3, 4) and all(map(_is_number, cells[-2:])):
            raise ValueError(f"its line '{line}' is a landmark, but begins with #: write it without #")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
