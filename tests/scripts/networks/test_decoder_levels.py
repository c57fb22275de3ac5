# SPDX-License-Identifier: Apache-2.0
"""Decoder levels side by side: what they hold, their size, their place."""

import pytest
import torch
from scripts.networks import UNetBackbone, side_by_side


@pytest.fixture
def backbone():
    torch.manual_seed(0)
    return UNetBackbone(features=(4, 8, 16)).eval()


def levels(backbone, image):
    return backbone.decode(backbone.encode(image))[::-1], backbone.padding(list(image.shape[2:]))


@torch.no_grad()
def test_the_first_channels_are_those_of_the_local_features(backbone):
    image = torch.rand(2, 1, 9, 10, 7)  # padded to 12 x 12 x 8
    found = side_by_side(*levels(backbone, image))
    assert found.shape == (2, 4 + 8, 9, 10, 7)
    torch.testing.assert_close(found[:, :4], backbone(image)[1])


@torch.no_grad()
def test_coarser_levels_are_enlarged_with_aligned_corners(backbone):
    image = torch.rand(1, 1, 8, 8, 12)  # fits: no padding
    decoded, padding = levels(backbone, image)
    found = side_by_side(decoded, padding)[:, 4:]
    assert decoded[1].shape == (1, 8, 4, 4, 6)
    for corner in ((0, 0, 0), (-1, -1, -1), (0, -1, 0)):
        torch.testing.assert_close(found[(0, slice(None), *corner)], decoded[1][(0, slice(None), *corner)])


@torch.no_grad()
def test_one_level_is_the_local_features_alone(backbone):
    image = torch.rand(1, 1, 10, 8, 8)
    decoded, padding = levels(backbone, image)
    torch.testing.assert_close(side_by_side(decoded[:1], padding), backbone(image)[1])
