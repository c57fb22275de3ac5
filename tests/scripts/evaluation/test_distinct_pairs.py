# SPDX-License-Identifier: Apache-2.0

"""Pairs of an evaluation: distinct, of different persons, every scan in one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scripts.data import PairDataset
from scripts.evaluation import DistinctPairs, list_distinct_pairs


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_pairs_are_distinct_and_hold_every_scan(data):
    owners = data.draw(st.lists(st.integers(0, 6), min_size=2, max_size=16).filter(lambda s: len(set(s)) > 1))
    scans = [{"subject": owner} for owner in owners]
    pairs = list_distinct_pairs(scans, seed=data.draw(st.integers(0, 9)))
    assert len(set(pairs)) == len(pairs)
    assert all(owners[a] != owners[b] for a, b in pairs)
    possible = sum(a != b for i, a in enumerate(owners) for b in owners[:i])
    assert len(pairs) == min(len(scans), possible)
    assert len({frozenset(pair) for pair in pairs}) == len(pairs)
    assert {end for pair in pairs for end in pair} == set(range(len(scans)))


def test_thirty_scans_make_thirty_pairs_of_thirty_person_pairs():
    """Random draws gave 16 pairs of 3 scans, 6 of them distinct."""
    pairs = list_distinct_pairs([{"subject": n} for n in range(30)])
    assert len({frozenset(pair) for pair in pairs}) == 30
    used = [sum(n in pair for pair in pairs) for n in range(30)]
    assert min(used) >= 1
    assert max(used) <= 3
    assert len({fixed for fixed, _ in pairs}) > 20


def test_half_as_many_pairs_as_scans_hold_them_all():
    pairs = list_distinct_pairs([{"subject": n} for n in range(12)], 6)
    assert sorted(end for pair in pairs for end in pair) == list(range(12))


def test_two_persons_meet_again_only_when_all_have():
    owners = [n // 2 for n in range(12)]
    pairs = list_distinct_pairs([{"subject": owner} for owner in owners], 30)
    persons = [frozenset((owners[a], owners[b])) for a, b in pairs]
    assert len(set(persons[:15])) == len(set(persons[15:])) == 15


def test_the_other_direction_comes_last_and_then_there_are_no_more(capsys):
    data = [{"image": torch.zeros(1, 4, 4, 4), "subject": n} for n in range(4)]
    dataset = DistinctPairs(data, length=20)
    assert len(dataset) == len(set(dataset.pairs)) == 12
    assert len({frozenset(pair) for pair in dataset.pairs[:6]}) == 6
    assert "4 scans make 12 distinct pairs, fewer than 20" in capsys.readouterr().out


@pytest.mark.parametrize(("labelled", "expected"), [(2, 1), (4, 4), (1, 0)])
def test_labelled_scans_meet_each_other(labelled, expected):
    scans = [{"subject": n, **({"label": "there"} if n < labelled else {})} for n in range(21)]
    pairs = list_distinct_pairs(scans)
    assert sum(a < labelled and b < labelled for a, b in pairs) >= expected
    assert {end for pair in pairs for end in pair} == set(range(21))


def test_cohorts_are_not_mixed():
    scans = [{"subject": n, "cohort": "heads" if n < 5 else "hearts"} for n in range(9)]
    assert all((a < 5) == (b < 5) for a, b in list_distinct_pairs(scans))


def test_same_seed_same_pairs_and_augmentation():
    class Noise:
        def __call__(self, pair):
            return pair

    data = [{"image": torch.full((1, 2, 2, 2), float(n)), "subject": n} for n in range(6)]
    first, again, other = (DistinctPairs(data, None, Noise(), seed=seed) for seed in (3, 3, 4))
    assert [first.indices(n) for n in range(6)] == [again.indices(n) for n in range(6)]
    assert first.pairs != other.pairs
    assert isinstance(first, PairDataset)
    fixed, moving, _ = first.indices(2)
    assert first[2]["image"].max() == fixed
    assert first[2]["moving"].max() == moving
