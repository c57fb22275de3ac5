# SPDX-License-Identifier: Apache-2.0

"""
Tables and pictures of the documents, made anew from the results: ``python benchmarks/documents.py --data FOLDER``.

The tables are those of ``benchmarks/tables.py``; ``benchmarks/documents.json`` says how a picture is drawn. Pictures
of numbers alone need no ``--data``; the others are left out without it.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bundle"))

import tables
from evidence.plan import REPOSITORY
from scripts.data import read_json
from scripts.errors import show_one_line

PLAN = Path(__file__).with_name("documents.json")
DATA = "DATA"


def placed(argument: str, data: Path | None) -> str:
    """An argument of the plan with the folder of the sets in place of ``DATA`` and paths from the repository's root."""
    if argument.split("/")[0] == DATA and data is not None:
        return str(data / argument[len(DATA) :].lstrip("/"))
    return str(REPOSITORY / argument) if argument.startswith("benchmarks/") else argument


def main(arguments: list[str] | None = None) -> None:
    """
    Run the command.

    Args:
        arguments: its arguments, those of the process by default.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder that holds the sets")
    parser.add_argument("--plan", type=Path, default=PLAN, help="what is drawn, and how")
    given = parser.parse_args(arguments)
    tables.main()
    for picture, (command, *rest) in read_json(given.plan).items():
        if given.data is None and any(argument.split("/")[0] == DATA for argument in rest):
            print(f"{picture} is drawn from scans: left out without --data", flush=True)
            continue
        drawn = [placed(argument, given.data) for argument in rest]
        importlib.import_module(command).main([*drawn, "--out", str(REPOSITORY / picture)])


if __name__ == "__main__":
    show_one_line()
    main()
