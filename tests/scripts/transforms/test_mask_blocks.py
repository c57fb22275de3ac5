# SPDX-License-Identifier: Apache-2.0

"""Masked autoencoding: which voxels are hidden."""

import numpy as np
import pytest
from scripts.errors import InputError
from scripts.transforms import RandMaskBlocks


def image(*shape):
    return np.random.default_rng(0).random((2, *shape)).astype(np.float32)


def test_whole_blocks_are_hidden_by_the_mean_in_all_channels():
    original = image(32, 24, 16)
    for seed in range(5):
        transform = RandMaskBlocks(block=8, lowest=0.6, highest=0.9).set_random_state(seed)
        result = transform(original)
        hidden = result != original
        np.testing.assert_array_equal(hidden[0], hidden[1])
        np.testing.assert_allclose(result[hidden], original.mean(), rtol=1e-5)
        assert 0.4 < hidden.mean() < 1
        # along each axis the hidden voxels change from one block to the next alone: at most once in eight voxels
        for axis, size in enumerate((32, 24, 16)):
            changes = np.diff(hidden[0].astype(int), axis=axis).any(axis=tuple(a for a in range(3) if a != axis))
            assert len({int(place) % 8 for place in np.flatnonzero(changes)}) == 1
            assert changes.sum() <= size / 8


def test_share_of_the_blocks():
    """The share that is asked for, evenly drawn between the two ends; every voxel is hidden some time."""
    original = image(40, 40, 40)
    transform = RandMaskBlocks(block=4, lowest=0.6, highest=0.9).set_random_state(1)
    hidden = np.stack([(transform(original) != original)[0] for _ in range(60)])
    shares = hidden.mean(axis=(1, 2, 3))
    assert 0.57 < shares.min() < 0.65
    assert 0.85 < shares.max() < 0.93
    assert hidden.any(axis=0).all()


def test_the_same_seed_hides_the_same():
    original = image(8, 9, 3)
    first, second = (RandMaskBlocks().set_random_state(4)(original) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    "arguments", [{"block": 0}, {"lowest": 0.0}, {"lowest": 0.9, "highest": 0.6}, {"highest": 1.0}]
)
def test_refusals(arguments):
    with pytest.raises(InputError):
        RandMaskBlocks(**arguments)
