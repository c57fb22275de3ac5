# SPDX-License-Identifier: Apache-2.0

"""
What pooled features tell of whole scans: ``python benchmarks/scan_level.py --data FOLDER --out FOLDER``.

By ``make probe``; ``scan_level.json`` names the tables and columns. Writes ``scan_level.json``: the probe's answer for
each, with the grid that it planned; started again, it goes on where it was cut off.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bundle"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

import gvsl
from evidence.table import table
from scripts.data import read_json
from scripts.errors import InputError, show_one_line
from scripts.files import write_text

PLAN = Path(__file__).with_suffix(".json")


def told(data: Path, out: Path, about: Mapping[str, str]) -> dict[str, Any]:
    """
    The answer of one probe, of the images alone.

    Args:
        data: folder that holds the sets.
        out: where the probe writes.
        about: ``folder`` of the set, and options of ``probe.json``; ``table`` lies in the folder.

    Raises:
        InputError: where the probe failed.
    """
    folder = data / about["folder"]
    options = {**about, "table": str(folder / about["table"])}
    given = [word for name, value in options.items() if name != "folder" for word in (f"--{name}", value)]
    if gvsl.main(["probe", "--data", str(folder / "imagesTr"), "--out", str(out), *given]):
        raise InputError(f"the probe of {folder} failed: its message stands above")
    content = read_json(out / "probe.json")
    return {**content["scan_level"], **{name: content["settings"][name] for name in ("pixdim", "spatial_size")}}


def markdown(found: Mapping[str, Mapping[str, Any]]) -> str:
    """A row a column that was told: scores of the weights and of random ones, the gain, the gap between groups."""
    rows = []
    for name, one in found.items():
        keys = ("auroc", "f1") if one["task"] == "classification" else ("r2", "mae")
        scores = [
            f"{one['measures'][arm][keys[0]]:.2f}, {one['measures'][arm][keys[1]]:.2f}" for arm in ("weights", "random")
        ]
        gain, groups = one["gain"], one.get("groups", {}).get("weights", {})
        gap = f"{groups['gap']:.2f} ({groups['measure']})" if groups.get("gap") is not None else ""
        shown = f"{gain['difference']:+.2f} ({gain['low']:+.2f} to {gain['high']:+.2f})"
        rows.append([name, str(one["patients"]), ", ".join(keys), *scores, shown, gap])
    heads = ["", "patients", "measures", "weights", "random weights", "gain, 95 % interval", "gap between the sexes"]
    return table(heads, rows) if rows else "Not run yet."


def main(arguments: list[str] | None = None) -> None:
    """
    Run the command.

    Args:
        arguments: its arguments, those of the process by default.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the sets")
    parser.add_argument("--out", type=Path, required=True, help="folder, made if missing")
    parser.add_argument("--plan", type=Path, default=PLAN, help="what is asked")
    given = parser.parse_args(arguments)
    path = given.out / "scan_level.json"
    found = read_json(path) if path.is_file() else {}
    for number, (name, about) in enumerate(read_json(given.plan).items()):
        if name not in found:
            found[name] = told(given.data, given.out / str(number), about)
            write_text(json.dumps(found, indent=4) + "\n", path)
    print(markdown(found) + f"\nwritten to {path}", flush=True)


if __name__ == "__main__":
    show_one_line()
    main()
