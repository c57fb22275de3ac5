# SPDX-License-Identifier: Apache-2.0
"""Voxel sizes that differ by cohort: a scan sampled finer than the others."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform


class Zoomd(MapTransform):
    """
    Take the voxels of an image for ``zoom`` times as large as its header says, so that resampling to the grid's spacing
    samples it that many times finer. The same factor along every axis: what is rigid stays rigid.

    Args:
        keys: images with a header (:class:`~monai.data.MetaTensor`).
        factor_key: where an item has its factor; without one it stays as it is.
        allow_missing_keys: skip keys that are not there.
    """

    def __init__(self, keys: KeysCollection, factor_key: str = "zoom", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.factor_key = factor_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """
        Args:
            data: images ``(C, D, H, W)`` and the factor.
        """
        result, factor = dict(data), data.get(self.factor_key, 1.0)
        if factor != 1:
            for key in self.key_iterator(result):
                image = result[key].clone()
                scale = torch.full((len(image.affine),), factor, dtype=image.affine.dtype)
                scale[-1] = 1
                image.affine = image.affine @ torch.diag(scale)
                result[key] = image
        return result
