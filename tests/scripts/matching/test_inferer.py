# SPDX-License-Identifier: Apache-2.0

"""Instance refinement improves the pair at hand and leaves the network alone."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from scripts.errors import InputError
from scripts.losses import LocalNCCLoss
from scripts.matching import MatchingInferer
from scripts.networks import (
    GVSL,
    AffineHead,
    DeformableHead,
    GlobalMatchingHead,
    LocalMatchingHead,
    RestorationHead,
    UNetBackbone,
    ZMatchingHead,
)
from scripts.spatial import fuse, warp


@pytest.fixture
def network() -> GVSL:
    torch.manual_seed(0)
    return GVSL(
        UNetBackbone(features=(4, 8)), ZMatchingHead(AffineHead(8, 8), DeformableHead(4, 8)), RestorationHead(4)
    ).eval()


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    smooth = torch.nn.functional.interpolate(torch.rand(1, 1, 6, 7, 5), size=(20, 24, 18), mode="trilinear")
    shift = torch.zeros(1, 3, 20, 24, 18)
    shift[:, 1] = 1.5
    return smooth, warp(smooth, shift, padding_mode="border")


def test_without_refinement_the_network_answers(network, pair):
    with torch.no_grad():
        found, expected = MatchingInferer()(pair[0], network, pair[1]), network(*pair)
    assert torch.equal(found["displacement"], expected["displacement"])
    with torch.no_grad():
        assert torch.equal(MatchingInferer(refine=3)(pair[0], network), network(pair[0]))


def test_the_network_sees_no_metadata_and_answers_the_same(network, pair, monkeypatch):
    """Else each of its operations would copy them."""
    known, plain = [MetaTensor(image) for image in pair], MatchingInferer(refine=2)(pair[0], network, pair[1])
    seen, call = [], network.forward
    monkeypatch.setattr(network, "forward", lambda *images: seen.extend(map(type, images)) or call(*images))
    found = MatchingInferer(refine=2)(known[0], network, known[1])
    assert set(seen) == {torch.Tensor}
    assert torch.equal(found["displacement"], plain["displacement"])
    assert {type(value) for value in found.values() if torch.is_tensor(value)} == {torch.Tensor}


def test_refinement_raises_the_similarity_within_an_evaluation(network, pair):
    """Under ``no_grad``, as evaluators run it; the result is consistent and the weights are untouched."""
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.no_grad():
        start = network(*pair)
        found = MatchingInferer(refine=40)(pair[0], network, pair[1])
    ncc = LocalNCCLoss()
    assert ncc(found["warped"], pair[0]) < 0.75 * ncc(start["warped"], pair[0])
    assert torch.allclose(found["displacement"], fuse(found["affine"], found["local_displacement"]), atol=1e-4)
    assert torch.allclose(found["warped"], warp(pair[1], found["displacement"]))
    assert not found["displacement"].requires_grad
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("matches", [1, 2])
def test_in_bfloat16_a_match_is_nearly_the_same(pair, monkeypatch, matches):
    """Features are rounded, positions are not."""
    monkeypatch.setattr("scripts.training.bfloat16.cpu_has_bfloat16", lambda: True)
    torch.manual_seed(0)
    features = (8, 16)
    head = ZMatchingHead(GlobalMatchingHead(features, (1,), (8,)), LocalMatchingHead(features, (1,), (1,), (8,)))
    network = GVSL(UNetBackbone(features=features), head, RestorationHead(8)).eval()
    with torch.no_grad():
        exact, found = (
            MatchingInferer(global_matches=matches, bfloat16=chosen)(pair[0], network, pair[1])
            for chosen in (False, True)
        )
    assert found["agreement"] != exact["agreement"]
    assert found["agreement"] == pytest.approx(exact["agreement"], abs=0.05)
    apart = (found["displacement"] - exact["displacement"]).norm(dim=1)
    assert apart.mean() < 0.3
    assert (found["affine"] != found["affine"].bfloat16()).any()
    assert torch.equal(found["warped"], warp(pair[1], found["displacement"]))


@pytest.mark.parametrize("name", ["sigmas", "finer_sigmas"])
def test_smoothing_has_two_widths(name):
    with pytest.raises(InputError, match=name):
        MatchingInferer(refine=2, **{name: [1.0]})


@pytest.mark.parametrize("option", [{"refine": -1}, {"global_matches": 0}, {"doubted": {"inliers": 0.7}}])
def test_numbers_out_of_range_are_refused(option):
    with pytest.raises(InputError, match=next(iter(option))):
        MatchingInferer(**option)


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ({"doubted": {"lost": "few"}}, "inferer#doubted#lost"),
        ({"whole_affine": {"scale": -1}}, "inferer#whole_affine#scale"),
        ({"sigmas": [1]}, "inferer#sigmas"),
        ({"most_voxels": "all"}, "inferer#most_voxels"),
    ],
)
def test_a_refusal_names_the_option_that_can_be_given(option, name):
    with pytest.raises(InputError, match=rf"{name} must be .*pass --{name} accordingly"):
        MatchingInferer(**option)
