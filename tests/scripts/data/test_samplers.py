# SPDX-License-Identifier: Apache-2.0

"""Numbered draws: any number of workers, processes and restarts draws the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.transforms import Compose, Identityd, RandGaussianNoised
from scripts.data import CaseDraws, DrawSampler
from scripts.errors import InputError
from torch.utils.data import DataLoader


def test_ranks_draw_together_what_one_process_draws():
    """The steps of two ranks, put together, hold the draws of one process with the whole batch."""
    draws_of_an_epoch = range(12)
    for epoch in range(3):
        samplers = [DrawSampler(draws_of_an_epoch, 2, rank) for rank in range(2)] + [DrawSampler(draws_of_an_epoch)]
        for sampler in samplers:
            sampler.set_epoch(epoch)
        first, second, alone = (list(sampler) for sampler in samplers)
        assert [len(sampler) for sampler in samplers] == [6, 6, 12]
        assert alone == list(range(12 * epoch, 12 * epoch + 12))
        for step in range(3):  # 2 draws_of_an_epoch a rank, 4 in all
            together = first[2 * step : 2 * step + 2] + second[2 * step : 2 * step + 2]
            assert sorted(together) == alone[4 * step : 4 * step + 4]


def test_ranks_get_equally_many_draws():
    """A length that the ranks do not divide is rounded up: no rank waits, no draw is given twice, none is left out."""
    draws_of_an_epoch = range(7)
    draws = []
    for epoch in range(2):
        shares = []
        for rank in range(3):
            sampler = DrawSampler(draws_of_an_epoch, 3, rank)
            sampler.set_epoch(epoch)
            shares.append(list(sampler))
        assert [len(share) for share in shares] == [3, 3, 3]
        draws += [draw for share in shares for draw in share]
    assert sorted(draws) == list(range(18))


def test_restart_goes_on_with_the_same_draws():
    """A sampler told epoch 1 right away gives what it gives after epoch 0."""
    draws_of_an_epoch = range(4)
    running, restarted = DrawSampler(draws_of_an_epoch), DrawSampler(draws_of_an_epoch)
    assert list(running) == [0, 1, 2, 3]
    running.set_epoch(1)
    restarted.set_epoch(1)
    assert list(running) == list(restarted) == [4, 5, 6, 7]


def test_an_epoch_taken_up_in_its_middle():
    """What an earlier process went through is left out, once: the next epoch is whole."""
    for rank in range(2):
        sampler = DrawSampler(range(6), 2, rank)
        sampler.set_epoch(1)
        sampler.begin_after(1)
        assert list(sampler) == [8 + rank, 10 + rank]
        assert list(sampler) == [6 + rank, 8 + rank, 10 + rank]


@pytest.fixture
def cases():
    return [{"image": torch.full((1, 4, 4, 4), float(n)), "number": n} for n in range(5)]


def draws(cases, **settings):
    noise = Compose([RandGaussianNoised("image", prob=1.0)])
    return CaseDraws(cases, Compose([Identityd("image")]), noise, length=8, **settings)


class TestCaseDraws:
    def test_a_draw_depends_on_its_number_and_the_seed(self, cases):
        """Asked in any order, by any object."""
        one, other = draws(cases, seed=3), draws(cases, seed=3)
        backwards = {n: other[n] for n in reversed(range(20))}
        for n in range(20):
            assert torch.equal(one[n]["image"], backwards[n]["image"])
        assert [one[n]["number"] for n in range(20)] != [draws(cases, seed=4)[n]["number"] for n in range(20)]

    def test_workers_change_nothing(self, cases):
        loaded = []
        for workers in (0, 2):
            data = draws(cases)
            loader = DataLoader(data, 2, sampler=DrawSampler(data), num_workers=workers)
            loaded.append(torch.cat([batch["image"] for batch in loader]))
        assert torch.equal(*loaded)

    def test_cases_stay_as_they_are(self, cases):
        data = draws(cases)
        for n in range(20):
            assert not torch.equal(data[n]["image"], cases[data[n]["number"]]["image"])
        assert all((data.cases[n]["image"] == n).all() for n in range(5))

    def test_weights(self, cases):
        """A case four times as heavy as the other is drawn four times as often; weight 0 never."""
        data = draws(cases, weights=[0, 4, 1, 0, 0])
        counts = np.bincount([data[n]["number"] for n in range(1000)], minlength=5)
        assert counts[[0, 3, 4]].sum() == 0
        assert 3 < counts[1] / counts[2] < 5.3

    def test_none(self):
        with pytest.raises(InputError, match="there are 0 and 8"):
            draws([])
