# SPDX-License-Identifier: Apache-2.0
"""Which pairs of a folder's scans are measured: every scan is in one, and no two persons meet twice without need."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..data.pair_dataset import PairDataset


def list_distinct_pairs(
    scans: Sequence[Mapping[str, Any]], count: int | None = None, seed: int = 0
) -> list[tuple[int, int]]:
    """
    Pairs of scans of different subjects (and the same cohort), none twice. The scans used least come next, so that
    half as many pairs as scans hold nearly all of them; once all are in a pair, two subjects meet again only when the
    others have met as often; the other direction of a pair comes last; labelled scans meet labelled ones where they
    can.

    Args:
        scans: dictionaries with ``subject``, possibly ``cohort`` and ``label``.
        count: pairs; None for as many as there are scans.
        seed: of the order.

    Returns:
        indices of the fixed and the moving scan; fewer than ``count`` where there are no more.
    """
    number = len(scans)
    owners: list[Any] = [(scan.get("cohort"), scan["subject"]) for scan in scans]
    subject = np.array([list(dict.fromkeys(owners)).index(owner) for owner in owners])
    cohort = np.array([list(dict.fromkeys(o[0] for o in owners)).index(owner[0]) for owner in owners])
    unlabelled = np.array(["label" not in scan for scan in scans])
    free = (cohort[:, None] == cohort) & (subject[:, None] != subject)
    count = min(number, int(free.sum()) // 2) if count is None else min(count, int(free.sum()))
    met = np.zeros([subject.max() + 1] * 2, dtype=int)
    used, fixed_before = np.zeros((2, number), dtype=int)
    rank = np.random.default_rng(seed).permutation(number)
    pairs: list[tuple[int, int]] = []
    meetings, turned = 0, False
    while len(pairs) < count:
        for one in np.lexsort((rank, unlabelled, used)):
            there = free[one] | free[:, one] if turned else free[one] & free[:, one]
            often = met[subject[one], subject]
            most = often[there].min(initial=number**2) if used[one] == 0 else meetings
            partners = np.flatnonzero(there & (often <= most))
            if len(partners):
                break
        else:
            meetings, turned = (meetings + 1, turned) if meetings <= met.max() else (0, True)
            continue
        unlike = (unlabelled != unlabelled[one])[partners]
        other = partners[np.lexsort((rank[partners], used[partners], unlike))[0]]
        swap = not free[one, other] or (free[other, one] and fixed_before[one] > fixed_before[other])
        fixed, moving = (int(other), int(one)) if swap else (int(one), int(other))
        pairs.append((fixed, moving))
        free[fixed, moving] = False
        used[[fixed, moving]] += 1
        fixed_before[fixed] += 1
        met[subject[fixed], subject[moving]] += 1
        met[subject[moving], subject[fixed]] += 1
    return pairs


class DistinctPairs(PairDataset):
    """
    The pairs of :func:`list_distinct_pairs`, prepared and augmented as :class:`~scripts.data.PairDataset` does.

    Args:
        data: scans: dictionaries with ``image``, ``subject`` and possibly ``label`` and ``cohort``.
        transform: deterministic preparation of one scan.
        augmentation: applied to the pair; whatever is random in it is seeded by the pair's number.
        length: pairs; None for as many as there are scans.
        seed: of the pairs' order and the augmentation.
        cache_dir: folder of a disk cache; None keeps prepared scans in memory.
        cache_rate: share of the scans kept in memory.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        transform: Callable | None = None,
        augmentation: Callable | None = None,
        length: int | None = None,
        seed: int = 0,
        cache_dir: str | None = None,
        cache_rate: float = 1.0,
    ) -> None:
        wanted = 1 if length is None else length
        super().__init__(data, transform, augmentation, wanted, seed, cache_dir, cache_rate)
        self.pairs = list_distinct_pairs(data, length, seed)
        if len(self.pairs) < wanted:
            print(f"{len(data)} scans make {len(self.pairs)} distinct pairs, fewer than {wanted}", flush=True)
        self.length = len(self.pairs)

    def indices(self, draw: int) -> tuple[int, int, int]:
        """Fixed scan, moving scan (of another subject) and the augmentation's seed of pair number ``draw``."""
        return *self.pairs[draw], int(np.random.default_rng([self.seed, draw]).integers(2**31))
