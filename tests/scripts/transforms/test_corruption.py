# SPDX-License-Identifier: Apache-2.0

"""Appearance transformations: reproducible, local, monotone, safe at any size."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import Compose, RandGaussianNoise
from scripts.errors import InputError
from scripts.transforms import RandBezierIntensity, RandEachd, RandInpaint, RandLocalShuffle

TRANSFORMS = [RandLocalShuffle, RandBezierIntensity, RandInpaint]
shapes = st.lists(st.integers(1, 12), min_size=2, max_size=3)


def image(*shape, seed=0):
    """A random image of 0..1 with one channel."""
    return np.random.default_rng(seed).random((1, *shape)).astype(np.float32)


@pytest.mark.parametrize("kind", TRANSFORMS)
@pytest.mark.parametrize("convert", [np.asarray, torch.as_tensor, MetaTensor])
def test_seed_type_and_input(kind, convert):
    """The same seed gives the same result, another seed another; the type stays, the input is left unchanged."""
    original = image(16, 14, 12)
    given_image = convert(original.copy())
    results = [np.asarray(kind(prob=1).set_random_state(seed)(given_image)) for seed in (3, 3, 4)]
    np.testing.assert_array_equal(results[0], results[1])
    assert np.abs(results[0] - results[2]).max() > 0
    assert np.abs(results[0] - original).max() > 0
    np.testing.assert_array_equal(np.asarray(given_image), original)
    result = kind(prob=1).set_random_state(3)(given_image)
    assert type(result) is type(given_image)
    assert result.dtype == given_image.dtype
    assert tuple(result.shape) == original.shape


@pytest.mark.parametrize("kind", TRANSFORMS)
def test_probability(kind):
    """Probability 0 does nothing; 0.5 does something about half the time."""
    original = image(8, 8, 8)
    np.testing.assert_array_equal(kind(prob=0)(original), original)
    transform = kind(prob=0.5).set_random_state(0)
    changed = [bool(np.any(transform(original) != original)) for _ in range(60)]
    assert 15 < sum(changed) < 45


@settings(max_examples=60, deadline=None)
@given(size=shapes, channels=st.integers(1, 2), seed=st.integers(0, 2**31 - 1))
@pytest.mark.parametrize("kind", TRANSFORMS)
def test_any_size_is_safe(kind, size, channels, seed):
    """From 1 voxel a side up, 2D and 3D, anisotropic: same shape, finite, within 0..1."""
    original = np.random.default_rng(seed).random((channels, *size)).astype(np.float32)
    result = kind(prob=1).set_random_state(seed)(original)
    assert result.shape == original.shape
    assert np.isfinite(result).all()
    assert result.min() >= 0
    assert result.max() <= 1


@pytest.mark.parametrize("size", [(8, 8, 8), (8, 8), (8, 12, 9)])
@pytest.mark.parametrize("kind", TRANSFORMS)
def test_something_happens_at_eight_voxels(kind, size):
    """At 8 voxels a side every draw changes the image: shuffling a good part of it."""
    original = image(*size)
    for seed in range(10):
        changed = np.mean(kind(prob=1).set_random_state(seed)(original) != original)
        assert changed > (0.15 if kind is RandLocalShuffle else 0)


@settings(max_examples=30, deadline=None)
@given(size=shapes, seed=st.integers(0, 2**31 - 1), block=st.sampled_from([0.05, 0.2, 0.5, 1.0]))
def test_shuffle_moves_voxels_within_blocks(size, seed, block):
    """Each value stays (the histogram is kept), moves less than a block along each axis, channels move together."""
    values = np.random.default_rng(seed).permutation(np.prod(size)).reshape(size).astype(np.float32)
    original = np.stack([values, values + 0.5])
    result = RandLocalShuffle(1, block=block).set_random_state(seed)(original)
    np.testing.assert_array_equal(np.sort(result[0].ravel()), np.sort(values.ravel()))
    np.testing.assert_array_equal(result[1], result[0] + 0.5)
    home = np.stack(np.unravel_index(np.argsort(values.ravel()), size))  # position of each value before
    now = np.stack(np.unravel_index(np.argsort(result[0].ravel()), size))
    largest = np.array([max(2, int(block * n)) for n in size])
    assert (np.abs(now - home).max(axis=1) < largest).all()


def test_shuffle_share():
    """The share of blocks that are shuffled: 0 leaves the image, 1 touches nearly all, a half about half."""
    original = image(40, 40, 40)
    changed = {
        share: np.mean(
            [np.mean(RandLocalShuffle(1, share=share).set_random_state(s)(original) != original) for s in range(6)]
        )
        for share in (0.0, 0.5, 1.0)
    }
    assert changed[0.0] == 0
    assert 0.3 < changed[0.5] < 0.6
    assert changed[1.0] > 0.7


def test_shuffle_sizes_are_fractions():
    """Larger images get larger blocks: at 1/20 of 80 voxels values move by 3, never more."""
    values = np.arange(80**2, dtype=np.float32).reshape(1, 80, 80)
    farthest = 0
    for seed in range(8):
        result = RandLocalShuffle(1).set_random_state(seed)(values)[0].astype(int)
        rows, columns = np.indices((80, 80))
        farthest = max(farthest, np.abs(result // 80 - rows).max(), np.abs(result % 80 - columns).max())
    assert farthest == 3


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31 - 1))
def test_bezier_is_monotone_and_keeps_the_ends(seed):
    """0 stays 0, 1 stays 1, a brighter voxel is never darker afterwards, nothing leaves 0..1."""
    ramp = np.linspace(0, 1, 401, dtype=np.float32).reshape(1, 401, 1)
    result = RandBezierIntensity(1).set_random_state(seed)(ramp).ravel()
    assert result[0] == 0
    assert result[-1] == 1
    assert (np.diff(result) >= 0).all()


def test_bezier_is_a_cubic_bezier_curve():
    """Points of the curve with the drawn control points lie on the mapping; the curves differ widely."""
    middle = []
    for seed in range(30):
        transform = RandBezierIntensity(1).set_random_state(seed)
        random = np.random.RandomState(seed)
        random.rand()  # whether to transform at all
        (x1, y1), (x2, y2) = random.rand(2, 2)
        for t in (0.2, 0.5, 0.9):
            x = 3 * (1 - t) ** 2 * t * x1 + 3 * (1 - t) * t**2 * x2 + t**3
            y = 3 * (1 - t) ** 2 * t * y1 + 3 * (1 - t) * t**2 * y2 + t**3
            found = transform.set_random_state(seed)(np.full((1, 2, 2), x, np.float32))
            np.testing.assert_allclose(found, y, atol=0.02)
        middle.append(transform.set_random_state(seed)(np.full((1, 2, 2), 0.5, np.float32))[0, 0, 0])
    assert np.std(middle) > 0.1


def test_inpainting_fills_boxes_with_noise():
    """One box of the asked size, filled with new uniform noise of 0..1 in all channels; nothing else changes."""
    original = np.full((2, 20, 30, 10), 2.0, np.float32)
    transform = RandInpaint(1, max_boxes=1, smallest=0.2, largest=0.2)
    for seed in range(5):
        result = transform.set_random_state(seed)(original)
        touched = result != 2
        np.testing.assert_array_equal(touched[0], touched[1])
        inside = np.argwhere(touched[0])
        np.testing.assert_array_equal(np.ptp(inside, axis=0) + 1, [4, 6, 2])
        assert len(inside) == 4 * 6 * 2
        filled = result[touched]
        assert filled.min() >= 0
        assert filled.max() <= 1
        assert np.std(filled) > 0.15


def test_inpainting_share():
    """Default boxes of 1/10 to 1/5: a few to some ten per cent of the volume, everywhere in it over many draws."""
    original = np.full((1, 30, 30, 30), 2.0, np.float32)
    transform = RandInpaint().set_random_state(0)
    touched = np.stack([transform(original)[0] != 2 for _ in range(150)])
    shares = touched.mean(axis=(1, 2, 3))
    assert 0.02 < shares.mean() < 0.12
    assert shares.min() > 0
    assert shares.max() <= 30 * 0.2**3
    ever = touched.any(axis=0)
    assert ever.mean() > 0.7
    assert ever[:3].any()
    assert ever[-3:].any()
    assert ever[:, :, -1].any()


def test_number_of_boxes():
    """more=0 stops after the first box, max_boxes=0 does nothing, more=1 draws them all."""
    original = np.full((1, 40, 40), 2.0, np.float32)

    def share(**options):
        transform = RandInpaint(1, smallest=0.1, largest=0.1, **options).set_random_state(1)
        return np.mean([(transform(original) != 2).mean() for _ in range(20)])

    assert share(more=0.0) == pytest.approx(0.01)
    assert share(max_boxes=0) == 0
    assert 0.08 < share(more=1.0, max_boxes=10) <= 0.1


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (RandLocalShuffle, {"block": 0}),
        (RandLocalShuffle, {"block": 1.5}),
        (RandLocalShuffle, {"share": -0.1}),
        (RandLocalShuffle, {"share": 1.1}),
        (RandInpaint, {"smallest": 0}),
        (RandInpaint, {"smallest": 0.3, "largest": 0.2}),
        (RandInpaint, {"largest": 1.2}),
    ],
)
def test_refusals(kind, arguments):
    """Fractions that are none are refused by name."""
    with pytest.raises(InputError, match=next(iter(arguments))):
        kind(**arguments)


def corruption():
    """All three, always applied."""
    return [RandLocalShuffle(1), RandBezierIntensity(1), RandInpaint(1)]


def test_each_key_has_its_own_draw():
    """Two equal images under two keys come out different, and both different from the original."""
    original = torch.as_tensor(image(12, 12, 12))
    data = {"image": original.clone(), "moving": original.clone(), "other": 1}
    for transform in corruption():
        result = RandEachd(("image", "moving"), [transform]).set_random_state(0)(data)
        assert (result["image"] != result["moving"]).any()
        assert (result["image"] != original).any()
        assert result["other"] == 1


def test_each_is_reproducible_and_leaves_the_input():
    """Seeding the dictionary transform, alone or within a Compose, seeds everything in it; the input stays as it is."""
    original = torch.as_tensor(image(12, 12, 12))
    data = {"image": original.clone(), "moving": original.clone()}
    for transform in (RandEachd(("image", "moving"), corruption()), Compose([RandEachd("image", corruption())])):
        first = transform.set_random_state(seed=5)(data)
        transform(data)  # other draws in between
        second = transform.set_random_state(seed=5)(data)
        third = transform.set_random_state(seed=6)(data)
        torch.testing.assert_close(first["image"], second["image"], atol=0, rtol=0)
        torch.testing.assert_close(first["moving"], second["moving"], atol=0, rtol=0)
        assert (first["image"] != third["image"]).any()
    assert set(data) == {"image", "moving"}
    torch.testing.assert_close(data["image"], original, atol=0, rtol=0)


def test_each_takes_transforms_without_randomness_and_missing_keys():
    """Plain functions can stand among the transforms; a missing key is an error unless it is allowed."""
    double = RandEachd(("image", "moving"), [lambda x: 2 * x], allow_missing_keys=True).set_random_state(0)
    assert double({"image": torch.ones(1)}) == {"image": 2}
    with pytest.raises(KeyError, match="moving"):
        RandEachd(("image", "moving"), [])({"image": torch.ones(1)})


def test_each_leaves_plain_tensors_plain():
    """MONAI's own transforms would make some of them tensors with meta data, which do not batch with the others."""
    plain, noise = torch.rand(1, 8, 8, 8), RandEachd(["image"], [RandGaussianNoise(prob=1.0)])
    result = noise({"image": plain})["image"]
    assert type(result) is torch.Tensor
    assert not torch.equal(result, plain)
    assert isinstance(noise({"image": MetaTensor(plain)})["image"], MetaTensor)
