# SPDX-License-Identifier: Apache-2.0

"""The sets on which matches of moved and of unfit scans are measured: ``benchmarks/robustness.json``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from scripts.data import read_json

from .bundle_match import BUNDLE, BundleMatch, options_of
from .scans import PARTS, Scan, count_seen, labelled_scans, list_pairs_of, read_scan_of

PLAN = BUNDLE.parent / "benchmarks" / "robustness.json"


def begin(description: str | None, arguments: list[str] | None) -> tuple[argparse.Namespace, dict[str, Any], Any]:
    """
    Begin a command that measures matches on the sets.

    Args:
        description: of the command.
        arguments: its arguments, those of the process by default.

    Returns:
        what was given, with the folder ``out`` made; the options of the match; the plan.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the sets")
    parser.add_argument("--out", type=Path, required=True, help="folder, made if missing")
    parser.add_argument("--plan", type=Path, default=PLAN, help="sets, and what is done to their scans")
    parser.add_argument("--pairs", type=int, default=4, help="pairs of each set")
    parser.add_argument("--subjects", choices=PARTS, default="held_back", help="which: choices are made on 'choosing'")
    given, rest = parser.parse_known_args(arguments)
    options, plan = options_of(rest), read_json(given.plan)
    given.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    return given, options, plan


@dataclass
class MatchedSet:
    """
    A set's scans and the match that is used on them.

    Args:
        name: of the set.
        match: on the prepared grid.
        scans: of the part of its subjects.
    """

    name: str
    match: BundleMatch
    scans: list[dict[str, Any]]

    @classmethod
    def of(cls, name: str, plan: Mapping[str, Any], data: Path, part: str, options: Mapping[str, Any]) -> MatchedSet:
        """
        Args:
            name: of the set.
            plan: its ``sets`` have for each name ``folder``, ``subject_key`` and the ``options`` of a match.
            data: folder of the sets' folders.
            part: see :func:`~comparison.scans.labelled_scans`.
            options: further ones.
        """
        described = plan["sets"][name]
        key = ConfigParser({"key": described["subject_key"]}).get_parsed_content("key")
        ids = {**described["options"], "finest": 1, **options}
        match = BundleMatch([str(BUNDLE / "configs" / "inference.json")], ids)
        scans = labelled_scans(data / described["folder"], key, part)
        count_seen(scans, part, match.model)
        return cls(name, match, scans)

    def pairs(self, count: int, groups: Sequence[Sequence[int]] = ()) -> list[tuple[Scan, Scan]]:
        """So many pairs of different subjects, read; ``groups`` of label codes make up structures."""
        read: dict[int, Scan] = {}
        for index in (chosen := list_pairs_of(self.scans, count, 0)):
            read |= {number: read_scan_of(self.scans[number], groups) for number in index if number not in read}
        return [(read[first], read[second]) for first, second in chosen]
