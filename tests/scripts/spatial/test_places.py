# SPDX-License-Identifier: Apache-2.0
"""Places of a mask: with others behind them that do not count, as for a GPU, all that follows is the same."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from scripts.losses import PlaceContrastLoss, place_contrast
from scripts.networks import GlobalMatchingHead, Levels, global_matching
from scripts.spatial.places import place_of, places_of

SIZE = (16, 20, 24)
SHARES = [0.0, 0.02, 0.5, 1.0]
"""Of a view that shows tissue: none, too little to match, and fewer or more places than are drawn."""


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def view(share, seed):
    image = random(1, 1, *SIZE, seed=seed) + 0.1
    image[..., round(share * SIZE[-1]) :] = 0
    return image


@pytest.fixture(params=SHARES)
def both_ways(request, monkeypatch):
    """Calls a function with the places alone, and with others behind them."""

    def compare(compute):
        found = []
        for padded in (False, True):
            for module in (global_matching, place_contrast):
                monkeypatch.setattr(module, "places_of", partial(places_of, padded=padded))
            found.append(compute(view(request.param, 1), view(request.param, 2)))
        torch.testing.assert_close(*found)

    return compare


def test_the_global_match_is_the_same(both_ways):
    torch.manual_seed(0)
    head = GlobalMatchingHead((4, 4, 4), strides=(2, 1), widths=(8, 8), points=700).eval()

    def match(*images):
        fixed, moving = (
            Levels(image, image, random(1, 4, *SIZE, seed=3), (), (random(1, 4, *(n // 2 for n in SIZE), seed=seed),))
            for seed, image in enumerate(images)
        )
        return head(fixed, moving)

    both_ways(match)


def test_the_contrast_and_its_gradient_are_the_same(both_ways):
    loss = PlaceContrastLoss({"2": 1.0, "1": 1.0}, points=600, anywhere=300)

    def gradients(*images):
        places = [
            {
                stride: (random(1, 4, *(n // stride for n in SIZE), seed=seed) - 0.5).requires_grad_()
                for stride in (2, 1)
            }
            for seed in (4, 5)
        ]
        temperatures = {stride: torch.tensor(0.1, requires_grad=True) for stride in (2, 1)}
        value = loss(*places, temperatures, *images, [True], torch.full((1, 3, *SIZE), 0.7))
        value.backward()
        tensors = [tensor for of in (*places, temperatures) for tensor in of.values()]
        assert all(tensor.grad.isfinite().all() for tensor in tensors)
        return [value.detach(), *(tensor.grad for tensor in tensors)]

    both_ways(gradients)


@pytest.mark.parametrize("share", SHARES)
def test_places_are_those_of_the_mask_in_their_order(share):
    mask = random(200) < share
    true = mask.nonzero()[:, 0]
    index, counted = places_of(mask, padded=True)
    assert len(index) == len(mask)
    assert torch.equal(index[counted], true)
    assert torch.equal(counted, torch.arange(200) < len(true))
    assert torch.equal(place_of(mask, torch.arange(len(true))), true)
