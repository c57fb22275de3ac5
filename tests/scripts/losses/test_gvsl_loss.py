# SPDX-License-Identifier: Apache-2.0

"""The whole loss and its terms: weights, both ways, what is restored."""

import copy

import numpy as np
import pytest
import torch
from random_volumes import noise
from scripts.errors import InputError
from scripts.losses import (
    GVSLLoss,
    LocalNCCLoss,
    MaskedRestorationTerm,
    MatchingTerm,
    RedundancyTerm,
    RestorationTerm,
    SmoothnessLoss,
    SmoothnessTerm,
    Term,
    redundancy,
)
from scripts.spatial import inside_volume, warp


def prediction(size, backward=False, seed=0):
    """What a network might return."""

    def one(seed):
        rng = np.random.default_rng(seed)
        fields = {name: torch.as_tensor(rng.normal(size=(2, 3, *size))) for name in ("displacement", "local")}
        levels = ((4, 2, 2, 2), (3, *size), (5, 2, 3, 2))
        return {
            "displacement": fields["displacement"],
            "local_displacement": fields["local"],
            "restored": torch.as_tensor(rng.random((2, 1, *size))),
            "features": tuple(torch.as_tensor(rng.random((2, *shape))) for shape in levels),
        }

    return {**one(seed), **({"backward": one(seed + 1)} if backward else {})}


def expected_terms(found, fixed, moving, restorable, field="local_displacement"):
    """The four terms of one way, put together from parts that are tested above."""
    displacement = found["displacement"]
    warped = warp(moving, displacement)
    return np.array(
        [
            LocalNCCLoss()(warped, fixed, inside_volume(displacement)).item(),
            SmoothnessLoss()(found[field]).item(),
            np.mean((found["restored"].numpy() - restorable.numpy()) ** 2),
            np.mean([redundancy(level).mean().item() for level in found["features"]]),
        ]
    )


def weighted(weights=(1.0, 1.0, 1.0, 0.0), corrupted="moving", field="local_displacement"):
    """A loss of the four terms."""
    matching, smoothness, restoration, redundancy = weights
    return GVSLLoss(
        {
            "matching": MatchingTerm(weight=matching),
            "smoothness": SmoothnessTerm(field, weight=smoothness),
            "restoration": RestorationTerm(corrupted, weight=restoration),
            "redundancy": RedundancyTerm(weight=redundancy),
        }
    )


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("corrupted", ["moving", "fixed"])
@pytest.mark.parametrize("field", ["local_displacement", "displacement"])
def test_gvsl_loss(backward, corrupted, field):
    """
    Weighted sum; the clean images decide; the restored image is the corrupted one; both ways are averaged. The
    prediction is left as it was.
    """
    size = (8, 7, 6)
    fixed, moving = noise(2, 1, *size, seed=5), noise(2, 1, *size, seed=6)
    found = prediction(size, backward)
    weights = (0.5, 2.0, 3.0, 4.0)
    given = copy.deepcopy(found)
    value = weighted(weights, corrupted, field)(given, torch.cat([fixed, moving], dim=1))
    there, back = (moving, fixed) if corrupted == "moving" else (fixed, moving)
    terms = expected_terms(found, fixed, moving, there, field)
    if backward:
        terms = (terms + expected_terms(found["backward"], moving, fixed, back, field)) / 2
    assert value["loss"].item() == pytest.approx(np.dot(weights, terms), rel=1e-5)
    assert list(value) == ["loss", *TERMS]
    np.testing.assert_allclose([value[name].item() for name in TERMS], terms, rtol=1e-5)
    torch.testing.assert_close(given, found, rtol=0, atol=0)


def test_gvsl_loss_ignores_the_warped_image():
    """What the network warped (corrupted, perhaps) is not looked at; outside the field of view is not rewarded."""
    size = (8, 7, 6)
    clean = torch.cat([noise(2, 1, *size, seed=5), noise(2, 1, *size, seed=6)], dim=1)
    found = prediction(size)
    loss = GVSLLoss()
    assert loss({**found, "warped": torch.zeros(1)}, clean) == loss(found, clean)
    away = {**found, "displacement": torch.full((2, 3, *size), 50.0)}
    assert loss(away, clean)["matching"] == 1


TERMS = ("matching", "smoothness", "restoration", "redundancy")


@pytest.mark.parametrize("name", TERMS)
def test_single_terms_and_refusals(name):
    """A weight of 0 switches a term off; a negative one is refused by name."""
    size = (8, 7, 6)
    clean = torch.cat([noise(2, 1, *size, seed=5), noise(2, 1, *size, seed=6)], dim=1)
    found = weighted(tuple(float(other == name) for other in TERMS))(prediction(size), clean)
    assert found["loss"].item() == pytest.approx(found[name].item(), rel=1e-6)
    with pytest.raises(InputError, match=f"{name}_weight"):
        weighted(tuple(-float(other == name) for other in TERMS))


def test_gvsl_loss_takes_other_measures_and_terms():
    """Other similarity and smoothness modules can be put in, and terms of one's own."""

    class Constant(torch.nn.Module):
        def __init__(self, value):
            super().__init__()
            self.value = value

        def forward(self, *_):
            return torch.tensor(self.value)

    class Depth(Term):
        def forward(self, found, clean):
            return clean["fixed"].sum() + found["displacement"].shape[2]

    matching, smoothness = MatchingTerm(Constant(2.0)), SmoothnessTerm(smoothness=Constant(3.0))
    loss = GVSLLoss({"matching": matching, "smoothness": smoothness, "depth": Depth(weight=10)})
    found = loss(prediction((5, 5, 5)), torch.zeros(2, 2, 5, 5, 5))
    assert {name: value.item() for name, value in found.items()} == {
        "loss": 55,
        "matching": 2,
        "smoothness": 3,
        "depth": 5,
    }


@pytest.mark.parametrize("weight", [0.0, 0.1])
def test_redundancy_of_no_weight_is_logged_and_costs_no_gradient(weight):
    found, size = prediction((8, 7, 6)), (8, 7, 6)
    features = found["features"][-1].requires_grad_()
    clean = torch.cat([noise(2, 1, *size, seed=5), noise(2, 1, *size, seed=6)], dim=1)
    found["displacement"].requires_grad_()
    terms = weighted((1, 1, 1, weight))(found, clean)
    terms["loss"].backward()
    assert (features.grad is not None) == (weight > 0)
    assert terms["redundancy"] > 0


def test_masked_restoration_counts_what_was_hidden():
    """A wrong value where the network saw the clean image costs nothing; nothing hidden, nothing to learn."""
    clean = {"moving": noise(2, 1, 6, 5, 4).float()}
    hidden = torch.zeros_like(clean["moving"], dtype=torch.bool)
    hidden[:, :, :3] = True
    found = {"given": clean["moving"].masked_fill(hidden, 9.0), "restored": clean["moving"] + 2.0}
    found["restored"][hidden] = clean["moving"][hidden] + 0.5
    assert MaskedRestorationTerm()(found, clean).item() == pytest.approx(0.25)
    assert MaskedRestorationTerm()({**found, "given": clean["moving"]}, clean).item() == 0
