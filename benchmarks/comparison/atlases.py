# SPDX-License-Identifier: Apache-2.0

"""Several atlases: the labels that a number of labelled scans give another one together."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scripts.data import read_json
from scripts.evaluation import number_structures, structure_quality
from scripts.matching.label_vote import LabelVote
from scripts.spatial import resample
from torch.nn import functional

from .bundle_match import BUNDLE, BundleMatch, Pair
from .methods import Match
from .tables import Row


def list_targets(scans: Sequence[Mapping[str, Any]], count: int, most: int, seed: int) -> list[tuple[int, list[int]]]:
    """
    Scans that get labels, and the atlases of each, drawn anew: scans of as many other subjects.

    Args:
        scans: with ``subject``.
        count: scans of different subjects that get labels.
        most: atlases of each; fewer where there are no more subjects.
        seed: of the choice.
    """
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(scans)).tolist()
    first = {scans[index]["subject"]: index for index in reversed(order)}
    one_each = [index for index in order if first[scans[index]["subject"]] == index]
    targets = one_each[:count]
    others = [[index for index in one_each if index != target] for target in targets]
    return [(target, generator.permutation(rest)[:most].tolist()) for target, rest in zip(targets, others, strict=True)]


def vote(name: str, match: Match, pairs: Sequence[Pair], counts: Sequence[int], groups: Sequence[Any]) -> list[Row]:
    """
    The labels of one scan from its first atlases: this bundle's by the vote of ``carry.json``, in which a linear layer
    fitted to the atlases has its share, the others' by majority, each atlas's labels interpolated linearly.

    Args:
        name: of the method.
        match: the method.
        pairs: the scan as the fixed one, with each of its atlases.
        counts: how many atlases vote, each a row.
        groups: for each structure the label codes that make it up.
    """
    fixed = pairs[0].fixed
    bundle = match if isinstance(match, BundleMatch) else None
    share = read_json(BUNDLE / "configs" / "carry.json")["linear_share"]
    own = {count: LabelVote(reader_share=share) for count in counts}
    shares = torch.zeros(len(groups) + 1, *fixed.image.shape[1:])
    rows: list[Row] = []
    matching = 0.0
    for number, pair in enumerate(pairs, start=1):
        start = time.process_time()
        if bundle is not None:
            data = bundle.match(pair)
            for count in (count for count in counts if number <= count):
                own[count].add(data)
        else:
            masks = functional.one_hot(pair.moving.label[0].long(), len(groups) + 1).movedim(-1, 0).float()
            shares += resample(masks, pair.moving.affine, match(pair), fixed.affine).float()
        matching += time.process_time() - start
        if number not in counts:
            continue
        start = time.process_time()
        if bundle is not None:
            codes = own[number].close(data, bundle.reader([one.moving for one in pairs[:number]])).codes
            found = number_structures(codes, groups)
        else:
            found = shares.argmax(dim=0)
        seconds = matching + time.process_time() - start
        spacing = fixed.affine[:3, :3].norm(dim=0).tolist()
        dice, distance = structure_quality(found[None, None].float(), fixed.label[None], len(groups), spacing)
        row: Row = {"method": f"{name}, {number} atlas{'es' if number > 1 else ''}", "fixed": Path(fixed.path).name}
        row |= {"moving": f"{number} atlases", "dice": float(dice.nanmean()), "hd95": float(distance.nanmean())}
        row |= dict.fromkeys(("folded", "log_jacobian_std", "inverse_consistency"), float("nan"))
        rows.append(row | {"voxels": fixed.image.numel(), "failed": 0, "cpu_seconds": seconds})
    return rows
