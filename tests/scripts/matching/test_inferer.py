# SPDX-License-Identifier: Apache-2.0

"""Instance refinement improves the pair at hand and leaves the network alone."""

from __future__ import annotations

import pytest
import torch
from scripts.errors import InputError
from scripts.losses import LocalNCCLoss
from scripts.matching import MatchingInferer
from scripts.networks import GVSL, AffineHead, DeformableHead, RestorationHead, UNetBackbone, ZMatchingHead
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


def test_negative_steps_are_refused():
    with pytest.raises(InputError, match="refine"):
        MatchingInferer(refine=-1)


@pytest.mark.parametrize("name", ["sigmas", "finer_sigmas"])
def test_smoothing_has_two_widths(name):
    with pytest.raises(InputError, match=name):
        MatchingInferer(refine=2, **{name: [1.0]})
