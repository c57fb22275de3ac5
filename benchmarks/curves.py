# SPDX-License-Identifier: Apache-2.0

"""
The course of trainings that went on from each other: ``python benchmarks/curves.py --course TABLE --out curves.png``.

The table is of their ``history.csv``, one below the other, with the column ``period`` before the others.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bundle"))

from pictures import save_picture
from scripts.data.tables import read_own
from scripts.errors import InputError, show_one_line
from scripts.plots import curves_figure


def course_of(table: Path) -> list[dict[str, float]]:
    """
    Args:
        table: see above.

    Returns:
        a row an epoch, counted on from the first of all, empty columns left out.

    Raises:
        InputError: when there is no such table, or it is empty.
    """
    rows = read_own(table, "period")
    if not rows:
        raise InputError(f"{table} does not exist or is empty: give one as benchmarks/results/training.csv is")
    rows = [{**row, "epoch": str(epoch), "period": ""} for epoch, row in enumerate(rows, 1)]
    return [{name: float(value) for name, value in row.items() if value} for row in rows]


def main(arguments: list[str] | None = None) -> None:
    """
    Run the command.

    Args:
        arguments: its arguments, those of the process by default.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--course", type=Path, required=True, help="the table")
    parser.add_argument("--out", type=Path, required=True, help="the picture")
    given = parser.parse_args(arguments)
    save_picture(curves_figure(course_of(given.course)), given.out)


if __name__ == "__main__":
    show_one_line()
    main()
