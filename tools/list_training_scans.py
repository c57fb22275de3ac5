# SPDX-License-Identifier: Apache-2.0
"""List the scans that a pre-training run was trained on, by name and by fingerprint, to be published with its weights.

``python tools/list_training_scans.py RUN OUT``: reads ``scans.csv`` and ``settings.json`` of the run's folder, and the
scans themselves, and writes a table with the columns set, scan, fingerprint.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from command import Parser, command
from scripts.data import fingerprint
from scripts.data.tables import read_own, write_own


def rows_of(run: Path) -> list[dict[str, str]]:
    """
    Args:
        run: folder of a pre-training run.

    Returns:
        a row a scan that was trained on, in the order of the run's scans.
    """
    trained = set(json.loads((run / "settings.json").read_text(encoding="utf-8"))["trained_on"])
    rows = []
    for row in read_own(run / "scans.csv", "scan"):
        path = Path(row["scan"])
        digits = fingerprint(str(path))
        if digits in trained:
            folder = next((up for up in path.parents if (up / "dataset.json").is_file()), path.parent)
            rows.append({"set": folder.name, "scan": path.name, "fingerprint": digits})
    return rows


@command("list_training_scans")
def main(argv: Sequence[str] | None = None) -> None:
    """See ``--help``."""
    parser = Parser(prog="list_training_scans", description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a pre-training run")
    parser.add_argument("out", type=Path, help="the table to write")
    args = parser.parse_args(argv)
    for name in ("scans.csv", "settings.json"):
        if not (args.run / name).is_file():
            parser.error(f"{args.run} holds no {name}: give the --output_dir of a pre-training run")
    rows = rows_of(args.run)
    write_own(rows, args.out, ["set", "scan", "fingerprint"])
    print(f"{len(rows)} scans that were trained on: {args.out}")


if __name__ == "__main__":
    sys.exit(main())
