# SPDX-License-Identifier: Apache-2.0
"""The contrast of places: low for descriptors that tell places apart, chance for those that do not; air is no place."""

from __future__ import annotations

import math

import pytest
import torch
from scripts.errors import InputError
from scripts.losses import PeopleContrastTerm, PlaceContrastLoss
from scripts.losses.place_contrast import neighbours, some_of
from scripts.spatial import box_mean
from torch.nn import functional

SIZE = (16, 20, 24)


def places(seed=0, batch=1):
    full = torch.randn(batch, 24, *SIZE, generator=torch.Generator().manual_seed(seed))
    full = box_mean(full, 1)
    return {1: full, 2: functional.avg_pool3d(full, 2), 4: functional.avg_pool3d(full, 4)}


def measure(loss, fixed, moving, image=None, known=None, displacement=None, temperature=0.05):
    batch = len(fixed[1])
    image = torch.ones(batch, 1, *SIZE) if image is None else image
    known = torch.ones(batch) if known is None else known
    displacement = torch.zeros(batch, 3, *SIZE) if displacement is None else displacement
    temperatures = {stride: torch.tensor(temperature) for stride in (1, 2, 4)}
    return loss(fixed, moving, temperatures, image, image, known, displacement)


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_the_right_places_score_low_and_chance_is_the_logarithm_of_their_number(stride):
    loss = PlaceContrastLoss({str(stride): 1.0}, anywhere=300, nearby=40)
    right, equal = places(), {s: torch.ones_like(v) for s, v in places().items()}
    assert measure(loss, right, right) < 0.5
    count = math.prod(n // stride for n in SIZE) if stride > 1 else 341
    assert measure(loss, equal, equal) == pytest.approx(math.log(count), rel=0.05)
    assert measure(loss, right, places(seed=1)) > 2


def test_a_known_map_says_where_places_lie():
    """Displaced by two voxels of each level: the loss is low with that map and high with none."""
    loss = PlaceContrastLoss({"4": 1.0, "2": 1.0, "1": 1.0})
    fixed = places()
    moving = {stride: value.roll(8 // stride, dims=2) for stride, value in fixed.items()}
    displacement = torch.zeros(1, 3, *SIZE)
    displacement[:, 0] = 8
    torch.manual_seed(0)
    assert measure(loss, fixed, moving, displacement=displacement) < 0.3 * measure(loss, fixed, moving)


def test_air_is_no_place():
    """Neither asked for nor a candidate: what the descriptors are there does not matter."""
    loss = PlaceContrastLoss({"4": 1.0, "2": 1.0, "1": 1.0})
    image = torch.zeros(1, 1, *SIZE)
    image[..., :12] = 1
    fixed, moving = places(), places(seed=1)
    beyond = 17  # of the places nearby, which are not asked for what they show
    other = {s: torch.cat([v[..., : beyond // s + 1], 9 * v[..., beyond // s + 1 :]], -1) for s, v in moving.items()}
    scores = []
    for changed in (moving, other):
        torch.manual_seed(0)
        scores.append(measure(loss, fixed, changed, image))
    torch.testing.assert_close(*scores)


def test_only_pairs_with_a_known_map_count():
    loss = PlaceContrastLoss({"2": 1.0}, points=10**6)
    fixed, moving = places(batch=2), places(seed=1, batch=2)
    both = measure(loss, fixed, moving, known=torch.tensor([1.0, 0.0]))
    first = measure(loss, {s: v[:1] for s, v in fixed.items()}, {s: v[:1] for s, v in moving.items()})
    torch.testing.assert_close(both, first)
    assert measure(loss, fixed, moving, known=torch.zeros(2)) == 0


def test_of_two_people_the_map_found_is_taken_for_the_true_one():
    """And only of them; it teaches the descriptors, not the map."""
    fixed, moving = places(batch=2), places(batch=2)
    displacement = torch.zeros(2, 3, *SIZE, requires_grad=True)
    temperatures = {stride: torch.tensor(0.05) for stride in (1, 2, 4)}
    found = {"places": {"fixed": fixed, "moving": moving, "temperatures": temperatures}, "displacement": displacement}
    clean = {name: torch.ones(2, 1, *SIZE) for name in ("fixed", "moving")}
    term = PeopleContrastTerm(PlaceContrastLoss({"2": 1.0}))
    moving[2].requires_grad_()
    far = torch.full_like(displacement, 8)
    loss = {pairs: term({**found, "known": {"pairs": pairs, "displacement": far}}, clean) for pairs in ((3, 0), (3, 5))}
    assert 0 < loss[3, 0] < 0.5
    assert loss[3, 5] == 0
    loss[3, 0].backward()
    assert displacement.grad is None
    assert moving[2].grad[0].abs().max() == 0 < moving[2].grad[1].abs().max()
    assert term({key: found[key] for key in ("places", "displacement")}, clean) == 0


def test_nothing_to_see_is_no_error():
    loss = PlaceContrastLoss()
    assert measure(loss, places(), places(), image=torch.zeros(1, 1, *SIZE)) == 0


def test_neighbours_average_to_the_position():
    position = torch.tensor([[1.25, 3.5, 0.0], [14.9, 19.0, 23.0], [-3.0, 40.0, 2.5]])
    index, weight = neighbours(position, SIZE)
    corners = torch.stack(torch.unravel_index(index, SIZE), dim=2).float()
    inside = torch.tensor([[1.25, 3.5, 0.0], [14.9, 19.0, 23.0], [0.0, 19.0, 2.5]])
    torch.testing.assert_close((corners * weight[..., None]).sum(dim=1), inside)


def test_impossible_settings_are_refused():
    with pytest.raises(InputError, match="gap"):
        PlaceContrastLoss(gap=6.0)
    with pytest.raises(InputError):
        PlaceContrastLoss({"2": -1.0})


def test_some_places_of_a_mask_are_different_each_as_likely_as_any_other():
    mask = torch.zeros(100, dtype=torch.bool)
    mask[20:60] = True
    hits = torch.zeros(100)
    for seed in range(1000):
        index, counted = some_of(mask, 10, torch.Generator().manual_seed(seed))
        assert counted.all()
        assert len(index.unique()) == 10
        hits[index] += 1
    assert hits[~mask].eq(0).all()
    assert (hits[mask] - 250).abs().max() < 5 * (250 * 0.75) ** 0.5
    index, counted = some_of(mask, 70, torch.Generator())
    assert set(index[counted].tolist()) == set(range(20, 60))
    assert len(some_of(mask, 1000, torch.Generator())[0]) == 100
