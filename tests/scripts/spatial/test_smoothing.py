# SPDX-License-Identifier: Apache-2.0
"""Box means and where there is tissue."""

from __future__ import annotations

import pytest
import torch
from scripts.spatial import box_mean, tissue
from torch.nn import functional


@pytest.mark.parametrize("size", [(6, 7, 5), (1, 2, 9), (8, 5)])
def test_box_mean_is_average_pooling_with_the_border_repeated(size):
    image = torch.randn(2, 3, *size)
    pool, mode = (functional.avg_pool3d, "replicate") if len(size) == 3 else (functional.avg_pool2d, "replicate")
    expected = image
    for _ in range(2):
        expected = pool(functional.pad(expected, (1,) * 2 * len(size), mode=mode), 3, 1)
    torch.testing.assert_close(box_mean(image, 2), expected)


def test_air_and_padding_are_no_tissue():
    image = torch.zeros(1, 1, 16, 16, 16)
    image[..., 4:12, 4:12, 4:12] = 0.5
    found = tissue(image + 0.01)
    assert found[..., 5:11, 5:11, 5:11].all()
    assert not found[..., :2, :, :].any()
    assert found.dtype == torch.float32
