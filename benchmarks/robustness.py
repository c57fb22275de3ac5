# SPDX-License-Identifier: Apache-2.0

"""
What a match leaves of a known motion: ``python benchmarks/robustness.py --data FOLDER --out FOLDER``.

FOLDER holds the sets of ``benchmarks/robustness.json``. Pairs of different people held back; the moving scan is turned,
shifted and enlarged, and the affine map that is found then compared with the one of the scan as it is. Writes
``robustness.csv`` (a row a match) and ``robustness.md``; started again, it goes on where it was cut off. What is given
besides, ``--id value``, goes to ``inference.json``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bundle"))

from comparison.known_maps import known_map, moved, what_is_left
from comparison.matched_sets import MatchedSet, begin
from comparison.scans import Scan
from comparison.tables import rounded
from scripts.data.tables import read_own, write_own
from scripts.errors import show_one_line
from scripts.files import write_text
from scripts.spatial import tissue

MEASURES = ("degrees", "scale", "shift", "mm", "agreement", "inliers", "cpu_seconds")
Row = dict[str, Any]


def concerned(motion: Mapping[str, Any]) -> str:
    """Which measure tells what is left of a motion."""
    return next(iter(motion))


def rows_of_pair(one: MatchedSet, scans: tuple[Scan, Scan], known: Mapping[str, Mapping[str, Any]]) -> Iterator[Row]:
    """What is left of each motion of one pair."""
    fixed, moving = scans
    pair = one.match.prepare(fixed, moving)
    image = pair.batch["image"]
    size, spacing = list(image.shape[2:]), image.affine[0][:3, :3].norm(dim=0).tolist()
    seen = tissue(torch.as_tensor(image))[0, 0] > 0
    plain = one.match.match(pair)["pred"]["affine"][0].clone()
    for motion, values in known.items():
        matrix = known_map(size, spacing, **values)
        turned = moved(pair, matrix)
        start = time.process_time()
        pred = one.match.match(turned)["pred"]
        row: Row = {"set": one.name, "fixed": Path(fixed.path).name, "moving": Path(moving.path).name, "motion": motion}
        row["cpu_seconds"] = time.process_time() - start
        row |= {key: float(pred[key]) for key in ("agreement", "inliers")}
        yield row | what_is_left(plain, pred["affine"][0], matrix, spacing, seen)


def markdown(rows: Sequence[Mapping[str, Any]], plan: Mapping[str, Any]) -> str:
    """A line a set and motion: median and worst of what is left, in how many it is allowed, and the mean distance."""
    lines = ["| | | pairs | left, median | worst | allowed | within | mean distance, mm |", f"|{'---|' * 8}"]
    unit = {"degrees": " degrees", "shift": " % of the field", "scale": " %"}
    for name in dict.fromkeys(row["set"] for row in rows):
        for motion, values in plan["known"].items():
            own = [row for row in rows if row["set"] == name and row["motion"] == motion]
            measure = concerned(values)
            left = [float(row[measure]) for row in own]
            allowed = plan["allowed"][measure]
            within = sum(value < allowed for value in left)
            apart = median(float(row["mm"]) for row in own)
            lines.append(
                f"| {name} | {motion} | {len(own)} | {median(left):.2f} | {max(left):.2f} | {allowed}{unit[measure]} "
                f"| {within} | {apart:.1f} |"
            )
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """
    Run the command.

    Args:
        arguments: its arguments, those of the process by default.
    """
    given, options, plan = begin(__doc__, arguments)
    rows: list[Row] = list(read_own(given.out / "robustness.csv", "set"))
    for name in plan["moved"]:
        one = MatchedSet.of(name, plan, given.data, given.subjects, options)
        for number, pair in enumerate(one.pairs(given.pairs), start=1):
            names = [Path(scan.path).name for scan in pair]
            if any([row["fixed"], row["moving"]] == names for row in rows):
                continue
            rows += rows_of_pair(one, pair, plan["known"])
            print(f"{name}: pair {number} of {given.pairs}", flush=True)
            write_own(rounded(rows, 4), given.out / "robustness.csv", ("set", "fixed", "moving", "motion", *MEASURES))
            write_text(markdown(rows, plan), given.out / "robustness.md")
    print(markdown(rows, plan) + f"written to {given.out}", flush=True)


if __name__ == "__main__":
    show_one_line()
    main()
