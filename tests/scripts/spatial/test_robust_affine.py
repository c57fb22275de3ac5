# SPDX-License-Identifier: Apache-2.0
"""The robust affine fit: right with many wrong pairs, and it says where it cannot be trusted."""

from __future__ import annotations

import pytest
import torch
from scripts.spatial import affine_about_centre, linear_matrix, robust_affine
from scripts.spatial.robust_affine import extreme_eigenvalues


def pairs(wrong=0.4, count=600, flat=False, seed=0):
    torch.manual_seed(seed)
    angles, scales = torch.tensor([[0.2, -0.15, 0.25]]), torch.tensor([[1.1, 0.9, 1.05]])
    linear = linear_matrix(angles, scales, torch.zeros(1, 6))
    affine = affine_about_centre(linear, torch.tensor([[4.0, -6.0, 3.0]]), (40, 50, 60))[0]
    source = torch.rand(count, 3) * torch.tensor([40.0, 50.0, 60.0])
    if flat:
        source[:, 0] = 20
    target = source @ affine[:, :3].T + affine[:, 3] + 0.5 * torch.randn(count, 3)
    strangers = torch.rand(count) < wrong
    target[strangers] = torch.rand(int(strangers.sum()), 3) * torch.tensor([40.0, 50.0, 60.0])
    return affine, source, target


@pytest.mark.parametrize("wrong", [0.0, 0.4, 0.6])
def test_wrong_pairs_do_not_count(wrong):
    affine, source, target = pairs(wrong)
    fit = robust_affine(source, target, torch.ones(len(source)))
    corners = torch.tensor([[0.0, 0, 0], [39, 49, 59], [39, 0, 59]])
    found, true = (corners @ m[:, :3].T + m[:, 3] for m in (fit.affine, affine))
    assert (found - true).norm(dim=1).max() < 1.0
    assert abs(float(fit.inliers) - (1 - wrong)) < 0.12
    assert fit.conditioning > 0.5


def test_pairs_that_lie_a_few_voxels_beside_do_not_pull_the_map():
    """As where two people differ in parts: a third of the pairs is off by six voxels, all the same way."""
    affine, source, target = pairs(wrong=0.0)
    target[::3] += torch.tensor([0.0, 0.0, 6.0])
    found, wide = (robust_affine(source, target, torch.ones(len(source)), scale=scale).affine for scale in (1.0, 4.0))
    apart = [(source @ (m - affine)[:, :3].T + (m - affine)[:, 3]).norm(dim=1).mean() for m in (found, wide)]
    assert apart[0] < 0.15
    assert apart[1] > 0.3


def test_an_inlier_lies_within_the_tolerance():
    _, source, target = pairs(wrong=0.0)
    target[::2] += torch.tensor([5.0, 0.0, 0.0]) * torch.randn(300, 1).sign()
    wide, narrow = (robust_affine(source, target, torch.ones(600), tolerance=size).inliers for size in (8.0, 3.0))
    assert wide == 1
    assert 0.45 < narrow < 0.55


def test_a_plane_determines_no_map():
    _, source, target = pairs(flat=True)
    fit = robust_affine(source, target, torch.ones(len(source)))
    assert fit.conditioning < 0.05
    assert fit.affine.isfinite().all()


def test_pairs_at_random_are_no_match():
    _, source, target = pairs(wrong=1.0)
    assert robust_affine(source, target, torch.ones(len(source))).inliers < 0.3


def test_no_weight_leaves_a_finite_map():
    _, source, target = pairs()
    assert robust_affine(source, target, torch.zeros(len(source))).affine.isfinite().all()


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_features_that_diverged_give_no_map_and_no_error(wrong):
    source = torch.rand(50, 3) * 20
    target = source.clone()
    target[7, 1] = wrong
    assert torch.isnan(robust_affine(source, target, torch.ones(50)).affine).all()


def test_pairs_of_no_weight_change_nothing():
    _, source, target = pairs()
    some = (torch.arange(len(source)) % 3 > 0).float()
    alone = robust_affine(source[some > 0], target[some > 0], torch.ones(int(some.sum())))
    torch.testing.assert_close(robust_affine(source, target, some), alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dims", [2, 3])
def test_the_conditioning_is_that_of_theextreme_eigenvalues(dims):
    generator = torch.Generator().manual_seed(0)
    for flat in (1.0, 0.1, 0.01, 0.0):
        points = torch.randn(50, dims, generator=generator)
        points[:, 0] *= flat
        matrix = points.T @ points
        expected = torch.linalg.eigvalsh(matrix)
        torch.testing.assert_close(torch.stack(extreme_eigenvalues(matrix)), expected[[0, -1]], rtol=1e-5, atol=1e-4)
    same = extreme_eigenvalues(3 * torch.eye(dims))
    torch.testing.assert_close(torch.stack(same), torch.full((2,), 3.0))
