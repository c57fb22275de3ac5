# SPDX-License-Identifier: Apache-2.0
"""A whole map is split anew into an affine part and what is left of it."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from scripts.errors import InputError
from scripts.matching import FinerGrid, MatchingInferer, split_anew
from scripts.spatial import affine_about_centre, affine_displacement, fuse, linear_matrix

SIZE = (24, 28, 20)
RULE = {"scale": 2.0, "points": 2000}


def turned(angle: float = 0.2, shift: float = 2.0) -> torch.Tensor:
    linear = linear_matrix(torch.tensor([[0.0, 0.0, angle]]), torch.full((1, 3), 1.1), torch.zeros(1, 6))
    return affine_about_centre(linear, torch.tensor([[0.0, shift, 0.0]]), SIZE)


def a_match(affine: torch.Tensor, local: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"affine": affine, "local_displacement": local, "displacement": fuse(affine, local)}


@pytest.fixture
def fixed() -> torch.Tensor:
    image = torch.zeros(1, 1, *SIZE)
    image[..., 6:18, 6:22, 5:15] = 1
    return image


def test_the_affine_part_is_found_whatever_the_split_before(fixed):
    """Of a map that is affine but in a fifth of the tissue and in the air: robustly; the whole map stays."""
    found = a_match(torch.eye(3, 4)[None], affine_displacement(turned(), SIZE))
    found["displacement"][:, :, :8, :11] += 6
    found["local_displacement"] = found["displacement"]
    found["displacement"][:, :, :, :5] = 0
    split = split_anew(found, fixed, None, **RULE)
    torch.testing.assert_close(split["affine"], turned(), atol=0.05, rtol=0)
    assert torch.equal(split["matched_affine"], torch.eye(3, 4)[None])
    assert split["displacement"] is found["displacement"]
    torch.testing.assert_close(
        fuse(split["affine"], split["local_displacement"]), found["displacement"], atol=1e-3, rtol=0
    )


def test_a_match_on_a_finer_grid_is_split_alike(fixed):
    prepared = MetaTensor(fixed, affine=torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0]))[None])
    original = MetaTensor(torch.zeros(1, 1, *(2 * n for n in SIZE)), affine=torch.eye(4)[None])
    grid = FinerGrid.of(prepared, original, finest=0.5)
    assert grid is not None
    finer = grid.affine_map(torch.eye(3, 4)[None])
    local = affine_displacement(grid.affine_map(turned()), grid.size)
    found = {
        **a_match(torch.eye(3, 4)[None], affine_displacement(turned(), SIZE)),
        "finer_affine": finer,
        "finer_local_displacement": local,
        "matched_affine": turned(0.1),
    }
    split = split_anew(found, fixed, grid, **RULE)
    assert torch.equal(split["matched_affine"], turned(0.1))
    torch.testing.assert_close(split["finer_affine"], grid.affine_map(split["affine"]))
    assert split["finer_local_displacement"].abs().max() < 0.05
    torch.testing.assert_close(
        fuse(split["finer_affine"], split["finer_local_displacement"]), fuse(finer, local), atol=1e-3, rtol=0
    )


@pytest.mark.parametrize("why", ["air", "flat", "mirrored", "diverged", "outside"])
def test_where_nothing_can_be_fitted_a_match_stays_as_it_is(fixed, why):
    whole = torch.zeros(1, 3, *SIZE)
    if why == "flat":
        whole[:, 0] = -torch.arange(SIZE[0])[:, None, None].float()
    elif why == "mirrored":
        whole[:, 0] = SIZE[0] - 1 - 2 * torch.arange(SIZE[0])[:, None, None].float()
    elif why == "diverged":
        whole[:] = torch.nan
    elif why == "outside":
        whole[:] = 100
    found = {**a_match(torch.eye(3, 4)[None], whole), "displacement": whole}
    kept = split_anew(found, fixed * (why != "air"), None, **RULE)
    assert kept.pop("matched_affine") is found["affine"]
    assert kept.keys() == found.keys()
    assert all(kept[name] is value for name, value in found.items())


def test_the_answer_of_an_inferer_is_split_where_asked_for(fixed):
    def network(one, other):
        return {**a_match(torch.eye(3, 4)[None], affine_displacement(turned(), SIZE)), "warped": other}

    kept, split = (MatchingInferer(whole_affine=rule)(fixed, network, fixed) for rule in (None, RULE))
    assert torch.equal(kept["affine"], torch.eye(3, 4)[None])
    torch.testing.assert_close(split["affine"], turned(), atol=0.01, rtol=0)
    with pytest.raises(InputError, match="whole_affine needs scale and points, not scale"):
        MatchingInferer(whole_affine={"scale": 2.0})
