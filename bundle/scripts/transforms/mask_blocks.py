# SPDX-License-Identifier: Apache-2.0
"""Masked autoencoding: most of a scan's blocks are hidden."""

from __future__ import annotations

import numpy as np
from monai.transforms import RandomizableTransform

from ..errors import InputError, check_numbers
from .corruption import _RandArray


class RandMaskBlocks(_RandArray):
    """
    Hide a random share of the blocks of a grid by the image's mean, for masked autoencoding (He et al., CVPR 2022).

    The grid begins at a random voxel, so that blocks at the border may be cut. ``monai.transforms.RandCoarseDropout``
    draws boxes that overlap, and their number instead of a share.

    Args:
        prob: probability of the transform.
        block: edge of a block in voxels.
        lowest: smallest share of the blocks that are hidden.
        highest: largest share.
    """

    def __init__(self, prob: float = 1.0, block: int = 8, lowest: float = 0.6, highest: float = 0.9) -> None:
        RandomizableTransform.__init__(self, prob)
        check_numbers({"block of the mask": block}, lowest=1, whole=True)
        if not 0 < lowest <= highest < 1:
            raise InputError(f"masked blocks: 0 < lowest {lowest} <= highest {highest} < 1 does not hold")
        self.block, self.lowest, self.highest = block, lowest, highest

    def apply(self, image: np.ndarray) -> np.ndarray:
        size = image.shape[1:]
        places = [(np.arange(n) + self.R.randint(self.block)) // self.block for n in size]
        count = [int(place[-1]) + 1 for place in places]
        share = self.R.uniform(self.lowest, self.highest)
        hidden = np.zeros(np.prod(count), dtype=bool)
        hidden[self.R.permutation(len(hidden))[: round(share * len(hidden))]] = True
        image[:, hidden.reshape(count)[np.ix_(*places)]] = image.mean()
        return image
