# SPDX-License-Identifier: Apache-2.0

"""The local correlation, against direct double-precision computations."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_volumes import noise
from scipy import ndimage
from scripts.errors import InputError
from scripts.losses import LocalNCCLoss, box_sum
from torch.nn import functional

SIZES = [(11, 9, 7), (13, 10)]


def direct_similarity(a, b, window, epsilon, mask=None):
    """Mean squared local correlation of one image, window by window, two-pass variances in double precision."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    mask = np.ones(a.shape, bool) if mask is None else np.asarray(mask, dtype=bool)
    half, scores = window // 2, []
    for p in np.ndindex(*a.shape):
        if not mask[p]:
            continue
        box = tuple(slice(max(0, k - half), k + half + 1) for k in p)
        u, v = a[box][mask[box]], b[box][mask[box]]
        u, v = u - u.mean(), v - v.mean()
        scores.append(((u * v).mean() + epsilon) ** 2 / (((u * u).mean() + epsilon) * ((v * v).mean() + epsilon)))
    return np.mean(scores)


@settings(max_examples=20, deadline=None)
@given(size=st.lists(st.integers(1, 8), min_size=2, max_size=3), window=st.sampled_from([3, 5, 9]))
def test_box_sum_is_scipys(size, window):
    """Sums over the window with zeros outside, as scipy's uniform filter, windows larger than the image too."""
    image = noise(2, 2, *size)
    found = box_sum(image, window).numpy()
    for b in range(2):
        for c in range(2):
            mean = ndimage.uniform_filter(image[b, c].numpy(), window, mode="constant")
            np.testing.assert_allclose(found[b, c], mean * window ** len(size), atol=1e-9)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("window", [3, 5, 9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ncc_against_direct_computation(size, window, dtype):
    """Masked NCC of related images with flat regions, all windows at the border included."""
    first, second = noise(*size), noise(*size, seed=1)
    second = 0.6 * first + 0.4 * second
    first[:4], second[:3, :5] = 0.25, 0.0  # flat in one, in the other, in both
    expected = 1 - direct_similarity(first, second, window, 1e-5)
    found = LocalNCCLoss(window)(first[None, None].to(dtype), second[None, None].to(dtype))
    assert found.item() == pytest.approx(expected, abs=1e-4 if dtype == torch.float32 else 1e-10)
    assert 0.05 < expected < 0.95


@pytest.mark.parametrize("size", SIZES)
def test_ncc_with_mask_against_direct_computation(size):
    """Only voxels inside the mask enter a window and only windows centred inside it count."""
    first, second = noise(*size), noise(*size, seed=1)
    second = 0.5 * first + 0.5 * second
    mask = noise(*size, seed=2) > 0.4
    mask[-3:] = False
    expected = 1 - direct_similarity(first, second, 5, 1e-5, mask.numpy())
    found = LocalNCCLoss(5)(first[None, None], second[None, None], mask[None, None])
    assert found.item() == pytest.approx(expected, abs=1e-10)


def test_mask_excludes():
    """What lies outside the mask has no influence, whatever it holds, and gets no gradient."""
    first, second = noise(1, 1, 10, 9, 8), noise(1, 1, 10, 9, 8, seed=1)
    mask = torch.ones(1, 1, 10, 9, 8, dtype=torch.bool)
    mask[:, :, 6:] = False
    loss = LocalNCCLoss(5)
    changed = first.clone()
    changed[:, :, 6:] = 1000 * noise(1, 1, 4, 9, 8, seed=3)
    changed.requires_grad_()
    value = loss(changed, second, mask)
    torch.testing.assert_close(value, loss(first, second, mask))
    torch.testing.assert_close(value, loss(first[:, :, :6], second[:, :, :6]))
    value.backward()
    assert changed.grad[:, :, 6:].abs().max() == 0
    assert changed.grad[:, :, :6].abs().max() > 0


def test_empty_mask_is_unrelated():
    """Nothing known is no reward and no NaN."""
    image = noise(1, 1, 6, 6, 6)
    assert LocalNCCLoss(5)(image, image, torch.zeros(1, 1, 6, 6, 6)).item() == 1


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_identical_images_cost_nothing(size, offset):
    """Identical images give 0 in float32, flat ones and ones with flat regions too."""
    image = noise(2, 1, *size).float()
    image[:, :, :6] = 0.3
    loss = LocalNCCLoss(5)
    assert loss(image + offset, image + offset).item() == pytest.approx(0, abs=1e-5)
    flat = torch.full_like(image, 0.7)
    assert loss(flat, flat).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("size", [(26, 24, 22), (35, 21, 17)])
def test_independent_images_score_below_one_percent(size):
    """Two unrelated images: no similarity, at the border too, in both directions of the comparison."""
    first, second = noise(1, 1, *size).float(), noise(1, 1, *size, seed=1).float()
    similarity = 1 - LocalNCCLoss(9)(first, second)
    assert 0 <= similarity < 0.01
    border = torch.ones(1, 1, *size)
    border[:, :, 1:-1, 1:-1, 1:-1] = 0
    local = 1 - LocalNCCLoss(9)(first[:, :, :9], second[:, :, :9])
    assert local < 0.01


def test_published_form_rewards_the_border():
    """The zero-padded form scores the same unrelated images far higher: why the masked form exists."""
    first, second = noise(1, 1, 20, 20, 20), noise(1, 1, 20, 20, 20, seed=1)
    assert 1 - LocalNCCLoss(9, masked=False)(first, second) > 0.2
    assert 1 - LocalNCCLoss(9)(first, second) < 0.01


@pytest.mark.parametrize("window", [3, 9])
@pytest.mark.parametrize("size", SIZES)
def test_published_form_against_dense_convolution(size, window):
    """masked=False: zero-padded sums by a dense convolution of ones, as published."""
    first, second = noise(2, 1, *size), 0.5 * noise(2, 1, *size) + 0.5 * noise(2, 1, *size, seed=1)
    n = len(size)
    convolve = {2: functional.conv2d, 3: functional.conv3d}[n]
    ones = torch.ones(1, 1, *[window] * n, dtype=torch.float64)
    count = window**n

    def total(image):
        return convolve(image, ones, padding=window // 2)

    mean_a, mean_b = total(first) / count, total(second) / count
    cross = total(first * second) - mean_b * total(first) - mean_a * total(second) + mean_a * mean_b * count
    var_a = total(first * first) - 2 * mean_a * total(first) + mean_a * mean_a * count
    var_b = total(second * second) - 2 * mean_b * total(second) + mean_b * mean_b * count
    expected = 1 - (cross * cross / (var_a * var_b + 1e-5)).mean()
    torch.testing.assert_close(LocalNCCLoss(window, masked=False)(first, second), expected)


@pytest.mark.parametrize("size", SIZES)
def test_contrast_and_brightness_do_not_matter(size):
    """Another contrast and brightness give 0; so does an inverted contrast, as the correlation is squared."""
    image = noise(1, 1, *size)
    loss = LocalNCCLoss(5)
    assert loss(2.5 * image - 0.4, image).item() < 2e-3
    assert loss(-1.0 * image + 1, image).item() < 2e-3


def test_flat_against_textured_is_unrelated():
    """A window flat in one image only is no match."""
    image = noise(1, 1, 12, 12, 12)
    assert LocalNCCLoss(5)(torch.full_like(image, 0.5), image).item() > 0.99


def test_border_windows_use_true_counts():
    """Outside voxels do not count: a constant added to both images changes nothing, at the border either."""
    first, second = noise(1, 1, 7, 6, 5), noise(1, 1, 7, 6, 5, seed=1)
    loss = LocalNCCLoss(9)
    torch.testing.assert_close(loss(first + 0.5, second + 0.5), loss(first, second), atol=1e-9, rtol=0)
    published = LocalNCCLoss(9, masked=False)
    assert (published(first + 0.5, second + 0.5) - published(first, second)).abs() > 1e-3


def test_per_image_of_a_batch_and_channels():
    """One similarity per image; channels are correlated one by one and averaged."""
    first, second = noise(3, 2, 8, 7, 6), noise(3, 2, 8, 7, 6, seed=1)
    second[1] = first[1]
    loss = LocalNCCLoss(5)
    found = loss.per_image(first, second)
    expected = [np.mean([direct_similarity(first[b, c], second[b, c], 5, 1e-5) for c in range(2)]) for b in range(3)]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-9)
    torch.testing.assert_close(loss(first, second), 1 - found.mean())
    masks = torch.ones(3, 1, 8, 7, 6)
    masks[0, :, 5:] = 0
    torch.testing.assert_close(loss.per_image(first, second, masks)[1:], found[1:])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("masked", [True, False])
def test_half_precision_is_finite(dtype, masked):
    """Half-precision images and autocast: float32 inside, finite, the float32 value of the same numbers."""
    first, second = noise(1, 1, 12, 11, 10).to(dtype), noise(1, 1, 12, 11, 10, seed=1).to(dtype)
    first[:, :, :5] = 0
    loss = LocalNCCLoss(9, masked=masked)
    expected = loss(first.float(), second.float())
    moved = first.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(moved, second)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)
    found.backward()
    assert torch.isfinite(moved.grad).all()


@pytest.mark.parametrize("masked", [True, False])
def test_ncc_gradients(masked):
    """The loss's gradient with respect to the warped image, numerically; finite for flat images."""
    first, second = noise(1, 1, 4, 3, 4).requires_grad_(), noise(1, 1, 4, 3, 4, seed=1)
    assert torch.autograd.gradcheck(LocalNCCLoss(3, masked=masked), [first, second])
    flat = torch.full((1, 1, 6, 6, 6), 0.5).requires_grad_()
    LocalNCCLoss(3, masked=masked)(flat, noise(1, 1, 6, 6, 6).float()).backward()
    assert torch.isfinite(flat.grad).all()


@pytest.mark.parametrize("window", [1, 2, 4, 0, -3])
def test_ncc_refusals(window):
    """Even and too small windows are refused."""
    with pytest.raises(InputError, match="odd"):
        LocalNCCLoss(window)
