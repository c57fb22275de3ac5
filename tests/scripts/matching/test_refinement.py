# SPDX-License-Identifier: Apache-2.0
"""Refinement: the gradient is the true one; a smooth map is found without folds; what is right stays."""

from __future__ import annotations

import pytest
import torch
from scripts.errors import InputError
from scripts.evaluation import folded_percentage
from scripts.matching import LocalNCCGradient, Refinement
from scripts.spatial import box_mean, inside_volume, warp
from torch.nn import functional

SIZE = (28, 32, 24)


def scan(size=SIZE, seed=0, batch=1):
    image = box_mean(torch.rand(batch, 1, *size, generator=torch.Generator().manual_seed(seed)), 3)
    return ((image - image.min()) / (image.max() - image.min())).double().float()


def wave(size=SIZE, amplitude=1.2):
    noise = torch.randn(1, len(size), *[4] * len(size), generator=torch.Generator().manual_seed(3)) * amplitude
    mode = "trilinear" if len(size) == 3 else "bilinear"
    return functional.interpolate(noise, size=size, mode=mode, align_corners=True)


@pytest.mark.parametrize("size", [(9, 12, 10), (14, 11)])
def test_the_gradient_is_that_of_automatic_differentiation(size):
    fixed, warped = (scan(size, seed).double() for seed in (0, 1))
    mask = torch.ones_like(fixed)
    mask[..., :3] = 0
    similarity = LocalNCCGradient(fixed, mask, window=5, epsilon=1e-4)
    value, gradient = similarity(warped)
    image = warped.clone().requires_grad_()

    def mean(x):
        pool = functional.avg_pool3d if len(size) == 3 else functional.avg_pool2d
        return pool(x * mask, 5, 1, 2) / pool(mask, 5, 1, 2).clamp(min=1e-9)

    variances = [mean(x * x) - mean(x) ** 2 + 1e-4 for x in (image, fixed)]
    squared = (mean(image * fixed) - mean(image) * mean(fixed)) ** 2 / (variances[0] * variances[1])
    total = (squared * mask).sum()
    torch.testing.assert_close(value[0], (total / mask.sum()).detach())
    torch.testing.assert_close(gradient, torch.autograd.grad(total, image)[0])


@pytest.mark.parametrize("size", [SIZE, (29, 31, 23), (40, 37)])
def test_a_smooth_map_is_found_without_folds(size):
    moving, true = scan(size), wave(size)
    fixed = warp(moving, true, padding_mode="border")
    found = Refinement()(fixed, moving, torch.zeros_like(true))
    inner = (..., *(slice(5, n - 5) for n in size))
    assert (found - true)[inner].abs().mean() < 0.5 * true[inner].abs().mean()
    assert folded_percentage(found).max() == 0
    inside = inside_volume(found)
    assert (warp(moving, found) - fixed)[inside].abs().mean() < 0.4 * (moving - fixed)[inside].abs().mean()


def test_what_is_right_stays():
    moving, true = scan(), wave()
    fixed = warp(moving, true, padding_mode="border")
    found = Refinement()(fixed, moving, true)
    inner = (..., *(slice(5, n - 5) for n in SIZE))
    assert (found - true)[inner].abs().mean() < 0.15


def test_pairs_of_a_batch_are_refined_each_by_itself():
    fixed, moving = scan(batch=2), scan(seed=1, batch=2)
    start = torch.zeros(2, 3, *SIZE)
    moving[1] = fixed[1]  # is done at once
    refine = Refinement(steps=[12, 12])
    both = refine(fixed, moving, start)
    for k in range(2):
        one = slice(k, k + 1)
        torch.testing.assert_close(both[one], refine(fixed[one], moving[one], start[one]))


def test_nothing_to_see_and_no_overlap_leave_the_map():
    flat, start = torch.zeros(1, 1, *SIZE), wave()
    torch.testing.assert_close(Refinement(field_sigma=0)(flat, flat, start), start, atol=1e-3, rtol=0)
    beyond = torch.full_like(start, 100.0)
    assert Refinement()(scan(), scan(seed=1), beyond).isfinite().all()


def test_impossible_settings_are_refused():
    with pytest.raises(InputError, match="steps for each grid"):
        Refinement(steps=[10], strides=[2, 1])
    with pytest.raises(InputError, match="window"):
        Refinement(window=4)
