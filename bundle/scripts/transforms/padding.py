# SPDX-License-Identifier: Apache-2.0
"""Padding: one value around what was measured, far from all measured ones, as CT scanners put outside their circle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

SMALLEST, AT_BORDER, GAP = 1e-3, 0.01, 0.2
"""
Of padding: share of the voxels, share of those on the volume's faces, and distance from the nearest measured value, in
parts of the range of these (from the 0.5th to the 99.5th percentile). The zeros around an extracted brain have
neighbours and are none.
"""

KEY = "padding"
"""Of an image's meta data: by channel the shares of padding below and above what was measured, which is filled."""


def find_padding(image: np.ndarray) -> tuple[dict[str, float], dict[str, float]]:
    """
    Args:
        image: ``(C, D, H, W)``.

    Returns:
        for the low and the high end: empty without padding; else its ``value``, its ``share`` of the voxels and the
        nearest measured value, ``nearest``.
    """
    faces = np.concatenate([np.take(image, (0, -1), axis=axis).ravel() for axis in range(1, image.ndim)])

    def at(end: Any) -> dict[str, float]:
        value = end(image)
        if np.mean(faces == value) < AT_BORDER:
            return {}
        measured = image[image != value]
        share = 1 - measured.size / image.size
        if share < SMALLEST or measured.size < 100:
            return {}
        nearest = end(measured)
        low, high = np.percentile(measured[:: max(1, measured.size // 100_000)], [0.5, 99.5])
        found = high > low and abs(float(nearest) - float(value)) > GAP * (high - low)
        return {"value": float(value), "share": share, "nearest": float(nearest)} if found else {}

    return at(np.min), at(np.max)


class FillPaddingd(MapTransform):
    """
    Padding gets the nearest measured value, so that resampling mixes no other into it; its share is noted in the meta
    data, so that percentiles leave it out. An image without padding stays as it is.

    Args:
        keys: of images, not of label maps.
        allow_missing_keys: skip keys that are not there.
    """

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """
        Args:
            data: images ``(C, D, H, W)``.

        Returns:
            the same, padding filled.
        """
        found = dict(data)
        for key in self.key_iterator(found):  # type: ignore[arg-type]
            image = found[key]
            ends = [find_padding(np.asarray(image[number : number + 1])) for number in range(len(image))]
            if not any(map(any, ends)):
                continue
            filled = image.clone() if isinstance(image, torch.Tensor) else image.copy()
            for channel, both in zip(filled, ends, strict=True):
                for end in filter(None, both):
                    channel[channel == end["value"]] = end["nearest"]
            if isinstance(filled, MetaTensor):
                filled.meta[KEY] = [[end.get("share", 0.0) for end in both] for both in ends]
            found[key] = filled
        return found


def measured_percentiles(image: Any, lower: float, upper: float, channel: int = 0) -> tuple[float, float]:
    """
    The percentiles of all voxels of a channel that are those of the measured ones.

    Args:
        image: ``(C, D, H, W)``; its padding was filled, or is found now.
        lower: percentile of the measured voxels.
        upper: another one.
        channel: number of the channel.

    Returns:
        the same two without padding.
    """
    shares = image.meta.get(KEY) if isinstance(image, MetaTensor) else None
    if shares is None:
        ends = find_padding(np.asarray(image[channel : channel + 1]))
        shares = {channel: [end.get("share", 0.0) for end in ends]}
    below, above = (float(share) for share in shares[channel])
    if not below and not above:
        return lower, upper
    measured = 1 - below - above
    return 100 * below + measured * lower, 100 * below + measured * upper
