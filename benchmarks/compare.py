# SPDX-License-Identifier: Apache-2.0

"""
This bundle's matching beside other registrations: ``python benchmarks/compare.py --data FOLDER --out FOLDER``.

Pairs of labelled scans of different subjects, each matched both ways by every method, in turns, on one thread; scored
in the scans' own grids by the same code. Writes ``comparison.csv`` (a row a match), ``.json``, ``.md`` and ``.png``;
started again, it goes on where it was cut off. What is given besides, ``--id value``, goes to ``inference.json`` as in
a user's match (``--pixdim "[1,1,1]"``).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bundle"))

from comparison.atlases import list_targets, vote
from comparison.bundle_match import BUNDLE, BundleMatch, Pair, options_of
from comparison.methods import DEFAULT, Match, make_methods
from comparison.scans import PARTS, count_seen, labelled_scans, list_pairs_of, read_scan_of
from comparison.scoring import MEASURES, inverse_consistency, score
from comparison.tables import Row, figure, markdown, rounded, summarise, title_of
from evidence.settings import digest
from scripts.data import read_json
from scripts.data.tables import write_own
from scripts.errors import InputError, show_one_line
from scripts.evaluation import common_structures, described_structures, without_nan
from scripts.files import write_text
from scripts.memory import keep_freed_memory

PARTIAL = "what a label map does not show was not drawn: pairs are scored on what both show"
VERSIONS = ("torch", "monai", "picsl_greedy", "antspyx", "convexAdam")


def match_pair(name: str, match: Match, ways: tuple[Pair, Pair], structures: int) -> list[Row]:
    """Both ways of a pair by one method: two rows. What a method cannot match counts as a Dice of 0."""
    rows: list[Row] = []
    fields: list[torch.Tensor] = []
    for pair in ways:
        row: Row = {"method": name, "fixed": Path(pair.fixed.path).name, "moving": Path(pair.moving.path).name}
        row |= dict.fromkeys(MEASURES, float("nan")) | {"voxels": pair.fixed.image.numel(), "failed": 0}
        start = time.process_time()
        try:
            field = match(pair)
        except (RuntimeError, ValueError, InputError) as error:
            print(f"{name} failed at {row['moving']} to {row['fixed']}: {error}", flush=True)
            failed = {"dice": 0.0, "dice_nearest": 0.0, "failed": 1, "cpu_seconds": time.process_time() - start}
            rows.append(row | failed)
            continue
        row["cpu_seconds"] = time.process_time() - start
        fields.append(field)
        rows.append(row | score(field, pair.fixed, pair.moving, structures))
    if len(fields) == 2:
        for row, pair, there, back in zip(rows, ways, fields, reversed(fields), strict=True):
            row["inverse_consistency"] = inverse_consistency(there, back, pair.fixed, pair.moving)
    return rows


def measured(out: Path, about: dict[str, Any]) -> list[Row]:
    """
    What an earlier run of the same comparison has measured.

    Raises:
        InputError: where the folder holds another comparison.
    """
    path = out / "comparison.json"
    if not path.is_file():
        return []
    content = read_json(path)
    if {key: content.get(key) for key in about} != json.loads(json.dumps(about)):
        raise InputError(f"{path} is of another comparison (data, options or versions differ): pass another --out")
    return [{key: float("nan") if value is None else value for key, value in row.items()} for row in content["matches"]]


def write(rows: list[Row], about: dict[str, Any], out: Path) -> None:
    """All files of the matches so far."""
    write_own(rounded(rows, 6), out / "comparison.csv", list(rows[0]))
    found = summarise(rows)
    content = without_nan({**about, "methods": found, "matches": rows})
    write_text(json.dumps(content, indent=1) + "\n", out / "comparison.json")
    title = title_of(about, rows)
    write_text(f"{title}\n\n{markdown(found)}", out / "comparison.md")
    figure(rows, title).savefig(out / "comparison.png", dpi=110)


def parse(arguments: list[str] | None) -> tuple[argparse.Namespace, dict[str, Any]]:
    """The command's own options, and those of ``inference.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of labelled scans, with a dataset.json")
    parser.add_argument("--out", type=Path, required=True, help="folder, made if missing")
    parser.add_argument("--pairs", type=int, default=10, help="pairs, each matched both ways")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of pairs")
    parser.add_argument("--subjects", choices=PARTS, default="all", help="which: choices are made on 'choosing'")
    parser.add_argument("--subject_key", help="what tells subjects apart, as in train.json")
    parser.add_argument("--merged_labels", help="entry of dataset.json that merges label codes")
    parser.add_argument("--partial_labels", choices=("True", "False"), default="False", help=PARTIAL)
    parser.add_argument("--methods", nargs="+", default=list(DEFAULT), help="which methods, see comparison/methods.py")
    parser.add_argument("--refine", type=int, default=20, help="steps of ours_refined; 0 leaves it out")
    parser.add_argument("--atlases", nargs="+", type=int, help="instead of pairs: labels by so many atlases, as 1 3 7")
    parser.add_argument("--grid", choices=("own", "model"), default="own", help="what greedy and ANTs are given")
    parser.add_argument("--config_file", nargs="+", default=[], help="overlays of inference.json, as settings.json")
    given, rest = parser.parse_known_args(arguments)
    return given, options_of(rest)


def main(arguments: list[str] | None = None) -> None:
    """
    Run the command.

    Args:
        arguments: its arguments, those of the process by default.
    """
    given, ids = parse(arguments)
    torch.set_num_threads(1)
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"  # read when ANTs is loaded
    key = ConfigParser({"key": given.subject_key}).get_parsed_content("key")
    scans = labelled_scans(given.data, key, given.subjects)
    partial = given.partial_labels == "True"
    structures = described_structures(str(given.data), scans, given.merged_labels, partial=partial)
    configs = [str(BUNDLE / "configs" / "inference.json"), *given.config_file]

    def make(**options: Any) -> BundleMatch:
        return BundleMatch(configs, {**ids, **options})

    methods = make_methods(given.methods, make, given.refine, given.grid)
    preparing = make(refine=0)
    pairs = list_pairs_of(scans, given.pairs, given.seed)
    about = {
        "data": given.data.resolve().name,
        "files": digest(given.data, scans),
        "part": given.subjects,
        "seed": given.seed,
        "structures": len(structures["names"]),
        "grid": given.grid,
        **({"partial_labels": True} if partial else {}),
        "options": ids,
        "refine": given.refine,
        "atlases": given.atlases,
        "model": preparing.weights(),
        "scans": {"all": len(scans), "trained_on": count_seen(scans, given.subjects, preparing.model)},
        "configuration": preparing.configuration(),
        "processor": platform.processor() or platform.machine(),
        "versions": {name: version for name in VERSIONS if (version := version_of(name))},
    }
    given.out.mkdir(parents=True, exist_ok=True)
    rows = measured(given.out, about)
    if given.atlases:
        targets = list_targets(scans, given.pairs, max(given.atlases), given.seed)
        for number, (target, atlases) in enumerate(targets, start=1):
            fixed, *others = (read_scan_of(scans[index], structures["groups"]) for index in (target, *atlases))
            if any(row["fixed"] == Path(fixed.path).name for row in rows):
                continue
            prepared = [preparing.prepare(fixed, other) for other in others]
            for name, match in methods.items():
                rows += (found := vote(name, match, prepared, sorted(given.atlases), structures["groups"]))
                print(f"{number}/{len(targets)} {name}: Dice {[round(row['dice'], 3) for row in found]}", flush=True)
            write(rows, about, given.out)
        pairs = []
    for number, (first, second) in enumerate(pairs, start=1):
        read = [read_scan_of(scans[index], structures["groups"]) for index in (first, second)]
        if partial:
            read[0].label, read[1].label = common_structures(read[0].label, read[1].label)
        ways = (preparing.prepare(read[0], read[1]), preparing.prepare(read[1], read[0]))
        if number == 1:
            preparing(ways[0])  # what PyTorch does once for all
        names = {Path(scan.path).name for scan in read}
        done = {row["method"] for row in rows if {row["fixed"], row["moving"]} == names}
        for name, match in methods.items():
            if name in done:
                continue
            found = match_pair(name, match, ways, len(structures["names"]))
            print(f"{number}/{len(pairs)} {name}: Dice {sum(row['dice'] for row in found) / 2:.3f}", flush=True)
            rows += found
        write(rows, about, given.out)
    print(markdown(summarise(rows)) + f"written to {given.out}", flush=True)


def version_of(package: str) -> str | None:
    """Of a package, None where it is not there."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    show_one_line()
    keep_freed_memory()  # as inference.json does
    main()
