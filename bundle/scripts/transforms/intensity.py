# SPDX-License-Identifier: Apache-2.0
"""Intensities scaled to 0..1: a fixed window, or the percentiles of each scan."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, ScaleIntensityRange, Transform
from monai.transforms.utils_pytorch_numpy_unification import concatenate, percentile

from ..errors import InputError, check_numbers
from .padding import measured_percentiles


def scale_intensity(
    keys: Sequence[str],
    intensity: str = "percentiles",
    window: Sequence[float] = (-1024, 1024),
    percentiles: Sequence[float] = (0.5, 99.5),
    allow_missing_keys: bool = False,
) -> Transform:
    """
    Intensities to 0..1.

    Args:
        keys: keys of the images.
        intensity: "percentiles" of each image (safe for any modality, needed for MR) or a fixed "window" (CT). Items
            with an ``intensity`` of their own are scaled by that one.
        window: lower and upper end of the window, in Hounsfield units for CT.
        percentiles: lower and upper percentile, 0..100.
        allow_missing_keys: skip keys that are not there.

    Returns:
        a dictionary transform that clips to 0..1.
    """
    if intensity not in ("percentiles", "window"):
        raise InputError(f"intensity is 'percentiles' (MR, or any) or 'window' (CT), not '{intensity}'")
    check_numbers({"window": window}, lowest=-math.inf, count=2)
    check_numbers({"percentiles": percentiles}, count=2)
    if window[0] >= window[1]:
        raise InputError(f"the intensity window {list(window)} must be [lower, upper]")
    if not percentiles[0] < percentiles[1] <= 100:
        raise InputError(f"percentiles {list(percentiles)} must be [lower, upper], within 0 to 100")
    return ScaleIntensityd(keys, intensity, window, percentiles, allow_missing_keys)


RANGE = "intensity_range"
"""Of an image's meta data: the two values of each channel that became 0 and 1."""


class ScaleIntensityd(MapTransform):
    """
    MONAI's ``ScaleIntensityRanged`` to 0..1, between the ends of a window or the percentiles of the image, where
    padding does not count. The two values are noted in the meta data, so that the same scan on another grid is scaled
    alike.

    Args:
        keys: of images.
        intensity: of items without one of their own, "percentiles" or "window".
        window: lower and upper end.
        percentiles: lower and upper, 0..100.
        allow_missing_keys: skip keys that are not there.
    """

    def __init__(
        self,
        keys: KeysCollection,
        intensity: str,
        window: Sequence[float],
        percentiles: Sequence[float],
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.intensity, self.window, self.percentiles = intensity, (window[0], window[1]), tuple(percentiles)
        self.advised = False

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """
        Args:
            data: images ``(C, D, H, W)``.

        Returns:
            the same, scaled channel by channel.

        Raises:
            InputError: for an ``intensity`` that does not exist.
        """
        found = dict(data)
        name = found.get("intensity", self.intensity)
        if name not in ("percentiles", "window"):
            raise InputError(f"intensity is 'percentiles' (MR, or any) or 'window' (CT), not '{name}'")
        for key in self.key_iterator(found):  # type: ignore[arg-type]
            image = found[key]
            ends = [self.window] * len(image) if name == "window" else self._percentiles(image)
            found[key] = scaled = scale_between(image, ends)
            if isinstance(scaled, MetaTensor):
                scaled.meta[RANGE] = [[float(low), float(high)] for low, high in ends]
        return found

    def _percentiles(self, image: Any) -> list[tuple[Any, Any]]:
        self._advise(image)
        shares = [
            measured_percentiles(image, self.percentiles[0], self.percentiles[1], channel)
            for channel in range(len(image))
        ]
        return [_ends(part, lower, upper) for part, (lower, upper) in zip(image, shares, strict=True)]

    def _advise(self, image: Any) -> None:
        """Say once that a scan looks like CT, whose values mean the same in every scan."""
        if self.advised or not looks_like_ct(np.asarray(image)):
            return
        self.advised = True
        path = image.meta.get("filename_or_obj", "a scan") if isinstance(image, MetaTensor) else "a scan"
        print(
            f"{path} looks like CT (Hounsfield units) and is scaled by its percentiles: --intensity window takes the "
            "same --window for every scan, which the shipped weights match better ([-160,400])",
            flush=True,
        )


def _ends(image: Any, lower: float, upper: float) -> tuple[Any, Any]:
    """Two percentiles; where nearly all voxels have one value, so that these are alike, with those of the others."""
    low, high = percentile(image, lower), percentile(image, upper)
    if high > low:
        return low, high
    others = image[image != low]
    if not len(others):
        return low, high
    return min(low, percentile(others, lower)), max(high, percentile(others, upper))


def scale_between(image: Any, ends: Sequence[tuple[Any, Any]]) -> Any:
    """
    Args:
        image: ``(C, D, H, W)``.
        ends: of each channel, the value that becomes 0 and the one that becomes 1.

    Returns:
        the image within 0..1, float32.
    """
    scales = [ScaleIntensityRange(low, high, b_min=0, b_max=1, clip=True) for low, high in ends]
    if len(scales) == 1:
        return scales[0](image)
    return concatenate([scale(image[k : k + 1]) for k, scale in enumerate(scales)], axis=0)


def looks_like_ct(image: np.ndarray) -> bool:
    """
    Whether values are Hounsfield units: air near -1000, soft tissue around 0, and little between them.

    Args:
        image: of any shape.
    """
    sample = image.ravel()[:: max(1, image.size // 100_000)]
    air, tissue, between = (
        float(np.mean((sample >= low) & (sample < high))) for low, high in ((-1100, -900), (-150, 250), (-700, -200))
    )
    inside = bool(sample.min() > -1500 and sample.max() < 5000)  # NumPy's own truth values are no JSON
    return inside and air > 0.02 and tissue > 0.02 and between < air + tissue
