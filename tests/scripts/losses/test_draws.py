# SPDX-License-Identifier: Apache-2.0
"""Draws from a seed on the device: uniform, independent of each other and of neighbouring seeds, always the same."""

from __future__ import annotations

import torch
from scripts.losses.draws import Draws, mixed

COUNT = 20000


def draws(seed):
    return Draws(torch.tensor([seed]))


def test_the_same_seed_draws_the_same_and_each_draw_is_another():
    one, same, other = draws(-7), draws(-7), draws(-6)
    first = one.bits(50)
    assert torch.equal(first, same.bits(50))
    assert not torch.equal(first, one.bits(50))
    assert not torch.equal(first, other.bits(50))


def test_no_number_comes_twice():
    """So that keys have no ties: what is mixed is a permutation."""
    assert len(mixed(torch.arange(10**6)).unique()) == 10**6
    found = draws(3).bits(10**6)
    assert len(found.unique()) == 10**6
    assert found.min() >= 0
    assert found.max() < 2**32


def test_draws_are_uniform_and_uncorrelated():
    """By the chi-squared of 100 equal parts, whose standard deviation is 14, and correlations, whose is 0.007."""
    rows = []
    for seed in (0, 1, 2, -1):
        one = draws(seed)
        rows += [one.uniform(COUNT), one.uniform(COUNT)]
    together = torch.stack(rows)
    assert together.min() >= 0
    assert together.max() < 1
    parts = torch.stack([torch.histc(row, 100, 0, 1) for row in rows])
    assert (((parts - COUNT / 100) ** 2).sum(dim=1) / (COUNT / 100) < 99 + 5 * 14).all()
    correlation = torch.corrcoef(torch.cat([together, together.roll(1, dims=1)])) - torch.eye(2 * len(rows))
    assert correlation.abs().max() < 5 * 0.0071


def test_below_reaches_every_number_alike():
    found = draws(5).below(torch.tensor(7), COUNT).bincount()
    assert len(found) == 7
    assert (found - COUNT / 7).abs().max() < 5 * (COUNT / 7) ** 0.5
    assert draws(5).below(torch.tensor(0), 9).eq(0).all()


def test_some_of_a_mask_are_different_places_each_as_likely_as_any_other():
    mask = torch.zeros(100, dtype=torch.bool)
    mask[20:60] = True
    hits = torch.zeros(100)
    for seed in range(1000):
        index, counted = draws(seed).some(mask, 10)
        assert counted.all()
        assert len(index.unique()) == 10
        hits[index] += 1
    assert hits[~mask].eq(0).all()
    assert (hits[mask] - 250).abs().max() < 5 * (250 * 0.75) ** 0.5
    index, counted = draws(0).some(mask, 70)
    assert set(index[counted].tolist()) == set(range(20, 60))
    assert len(draws(0).some(mask, 1000)[0]) == 100
