# SPDX-License-Identifier: Apache-2.0

"""
Are matches that fail told from those that do not: ``python benchmarks/doubtful.py --data FOLDER --out FOLDER``.

FOLDER holds the sets of ``benchmarks/robustness.json``. Pairs of different people held back, as they are and spoiled:
the moving scan mirrored, upside down, cut so that nothing of it is in the other, noise, another part of the body.
Writes ``doubtful.csv`` (a row a match, with what ``matches.csv`` has of it) and ``doubtful.md``: for each kind how many
are pointed out, and the area under the curve of each number. Started again, it goes on where it was cut off. What is
given besides, ``--id value``, goes to ``inference.json``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bundle"))

from comparison.bundle_match import Pair
from comparison.matched_sets import MatchedSet, begin
from comparison.scans import Scan
from comparison.tables import rounded
from scripts.data.tables import read_own, write_own
from scripts.errors import show_one_line
from scripts.files import write_text
from scripts.losses import LocalNCCLoss
from scripts.matching.match_table import measure
from scripts.spatial import tissue

RIGHT, MIRRORED = "right", "the mirror image"
SIGNALS = ("agreement", "inliers", "conditioning", "inverse_consistency_mm", "ncc", "ncc_gain", "determinant")
"""What is measured of each match; but for the inverse consistency, more is better."""
Row = dict[str, Any]


def halved(image: torch.Tensor, axis: int, lower: bool) -> torch.Tensor:
    """A scan ``(1, 1, D, H, W)`` of which only what lies on one side of the middle of its tissue is left."""
    place = tissue(torch.as_tensor(image))[0, 0].nonzero()[:, axis]
    index = torch.arange(image.shape[2 + axis])
    kept = (index < place.median()) if lower else (index >= place.median())
    return kept.reshape([-1 if other == axis else 1 for other in range(3)]).to(image)


def spoiled(pair: Pair, elsewhere: Pair, how: Mapping[str, Any]) -> Pair:
    """A pair that cannot be matched: see ``failing`` in the plan."""
    image, moving = pair.batch["image"].clone(), pair.batch["moving"].clone()
    if how.get("elsewhere"):
        return Pair(pair.fixed, elsewhere.moving, elsewhere.batch)
    if "axes" in how:
        moving[:] = torch.as_tensor(moving).flip([2 + axis for axis in how["axes"]])
    if how.get("noise"):
        moving[:] = torch.rand(moving.shape, generator=torch.Generator().manual_seed(0))
    if how.get("halves"):
        extent = tissue(torch.as_tensor(image))[0, 0].nonzero().double().std(dim=0)
        axis = int(extent.argmax())
        image[:] = image * halved(image, axis, True)
        moving[:] = moving * halved(moving, axis, False)
    return Pair(pair.fixed, pair.moving, {**pair.batch, "image": image, "moving": moving})


def measured(one: MatchedSet, pair: Pair, kind: str) -> Row:
    """What ``matches.csv`` says of a match, and more."""
    data = one.match.match(pair)
    row: Row = {"kind": kind, "set": one.name, "fixed": Path(pair.fixed.path).name}
    row |= {"moving": Path(pair.moving.path).name} | measure(data, one.match.parser.get_parsed_content("trusted"))
    fixed, moving = (torch.as_tensor(data[key]).float() for key in ("image", "moving"))
    row.setdefault("inverse_consistency_mm", "inf")  # of a pair of which no place was matched
    row["ncc_gain"] = float(row["ncc"]) - float(LocalNCCLoss(7).per_image(moving, fixed)[0])
    row["determinant"] = float(torch.linalg.det(data["pred"]["affine"][0, :, :3].double()))
    return row


def rows_of_pair(
    one: MatchedSet, scans: tuple[Scan, Scan], stranger: Scan, failing: Mapping[str, Mapping[str, Any]]
) -> Iterator[Row]:
    """The pair as it is, and spoiled in every way."""
    pair, elsewhere = one.match.prepare(*scans), one.match.prepare(scans[0], stranger)
    yield measured(one, pair, RIGHT)
    for kind, how in failing.items():
        yield measured(one, spoiled(pair, elsewhere, how), kind)


def area(rows: Sequence[Mapping[str, Any]], kind: str, signal: str) -> float:
    """How well a number tells right pairs from those of a kind: the area under the curve, mean over the sets."""
    areas, sign = [], -1 if signal == "inverse_consistency_mm" else 1
    for name in dict.fromkeys(row["set"] for row in rows):
        own = [row for row in rows if row["set"] == name and row["kind"] in (RIGHT, kind)]
        values = np.nan_to_num([sign * float(row[signal]) for row in own])
        areas.append(roc_auc_score([row["kind"] == RIGHT for row in own], values))
    return float(np.mean(areas))


def mirror_answers(rows: Sequence[Mapping[str, Any]], signal: str) -> list[float]:
    """Of each pair the number as it is, less that of its mirror image."""
    of = {(row["kind"], row["fixed"], row["moving"]): float(row[signal]) for row in rows}
    return [value - of[MIRRORED, fixed, moving] for (kind, fixed, moving), value in of.items() if kind == RIGHT]


def markdown(rows: Sequence[Mapping[str, Any]], failing: Sequence[str]) -> str:
    """The tables: how many of each kind are pointed out, by set; areas under the curves; mirror images by pairs."""
    sets = list(dict.fromkeys(row["set"] for row in rows))
    lines = [f"| pointed out, of all | {' | '.join(sets)} |", f"|{'---|' * (len(sets) + 1)}"]
    for kind in (RIGHT, *failing):
        said = [[row["look_at"] == "yes" for row in rows if (row["kind"], row["set"]) == (kind, name)] for name in sets]
        lines.append(f"| {kind} | {' | '.join(f'{sum(one)} of {len(one)}' for one in said)} |")
    lines += [
        "",
        f"| area under the curve, mean of the sets | {' | '.join(SIGNALS)} |",
        f"|{'---|' * (len(SIGNALS) + 1)}",
    ]
    for kind in failing:
        lines.append(f"| {kind} | {' | '.join(f'{area(rows, kind, signal):.2f}' for signal in SIGNALS)} |")
    lines += ["", f"| median | {' | '.join(SIGNALS)} |", f"|{'---|' * (len(SIGNALS) + 1)}"]
    for name in sets:
        for kind in (RIGHT, *failing):
            own = [row for row in rows if (row["kind"], row["set"]) == (kind, name)]
            values = [median(float(row[signal]) for row in own) for signal in SIGNALS]
            lines.append(f"| {name}, {kind} | {' | '.join(f'{value:.2f}' for value in values)} |")
    lines += ["", "| higher than with the mirror image, of all pairs | agreement | ncc |", "|---|---|---|"]
    for name in sets:
        own = [row for row in rows if row["set"] == name]
        answers = [mirror_answers(own, signal) for signal in ("agreement", "ncc")]
        lines.append(f"| {name} | {' | '.join(f'{sum(v > 0 for v in one)} of {len(one)}' for one in answers)} |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """
    Run the command.

    Args:
        arguments: its arguments, those of the process by default.
    """
    given, options, plan = begin(__doc__, arguments)
    rows: list[Row] = list(read_own(given.out / "doubtful.csv", "kind"))
    sets = [MatchedSet.of(name, plan, given.data, given.subjects, options) for name in plan["sets"]]
    pairs = [one.pairs(given.pairs) for one in sets]
    for number in range(given.pairs):
        for place, one in enumerate(sets):
            if number >= len(pairs[place]):
                continue
            pair = pairs[place][number]
            others = [other for step in range(1, len(sets)) if (other := pairs[(place + step) % len(sets)])]
            stranger = others[number % len(others)][0][1]
            names = [Path(scan.path).name for scan in pair]
            if any([row["kind"], row["fixed"], row["moving"]] == [RIGHT, *names] for row in rows):
                continue
            rows += rows_of_pair(one, pair, stranger, plan["failing"])
            print(f"{one.name}: pair {number + 1} of {given.pairs}", flush=True)
            write_own(
                rounded(rows, 4), given.out / "doubtful.csv", ("kind", "set", "fixed", "moving", *SIGNALS, "look_at")
            )
    table = markdown(rows, list(plan["failing"]))
    write_text(table, given.out / "doubtful.md")
    print(table + f"written to {given.out}", flush=True)


if __name__ == "__main__":
    show_one_line()
    main()
