# SPDX-License-Identifier: Apache-2.0
"""
Appearance transformations: what changes a scan's look and leaves its anatomy where it is (paper, section 3.1).

Array transforms on ``(C, D, H, W)`` or ``(C, H, W)`` images of intensities within 0..1, safe from 8 voxels a side (and
below). Sizes are fractions of the image, with a floor.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Randomizable, RandomizableTransform
from monai.utils import convert_data_type, convert_to_dst_type

from ..errors import InputError


class _RandArray(RandomizableTransform):
    """An array transform applied with probability ``prob``; subclasses say what happens to a fresh numpy copy."""

    def __call__(self, img: Any) -> Any:
        """
        Args:
            img: ``(C, D, H, W)`` or ``(C, H, W)``, numpy array or tensor; left unchanged.

        Returns:
            a new image of the same shape and type.
        """
        self.randomize(None)
        if not self._do_transform:
            return img
        array = np.array(convert_data_type(img, np.ndarray)[0], dtype=np.float32)
        return convert_to_dst_type(self.apply(array), img)[0]

    def apply(self, image: np.ndarray) -> np.ndarray:
        raise NotImplementedError


class RandLocalShuffle(_RandArray):
    """
    Shuffle the voxels within small blocks (Models Genesis' local pixel shuffling).

    The published loop draws thousands of overlapping blocks one by one; this draws one block size and one grid offset
    an image and shuffles a share of the grid's blocks at once. ``monai.transforms.RandCoarseShuffle`` is such a loop.

    Args:
        prob: probability of the transform.
        block: largest block edge as a fraction of the image's; at least 2 voxels.
        share: fraction of the blocks that are shuffled.
    """

    def __init__(self, prob: float = 0.8, block: float = 0.05, share: float = 0.75) -> None:
        RandomizableTransform.__init__(self, prob)
        if not 0 < block <= 1 or not 0 <= share <= 1:
            raise InputError(f"local shuffling: block {block} must be in (0, 1] and share {share} in [0, 1]")
        self.block, self.share = block, share

    def apply(self, image: np.ndarray) -> np.ndarray:
        size = np.array(image.shape[1:])
        edge = np.array([self.R.randint(min(2, n), max(2, int(self.block * n)) + 1) if n > 1 else 1 for n in size])
        start = np.array([self.R.randint(min(b, n - b + 1)) for b, n in zip(edge, size, strict=True)])
        count = (size - start) // edge
        region = (slice(None), *(slice(a, a + c * b) for a, b, c in zip(start, edge, count, strict=True)))
        dims = len(size)
        split = image[region].reshape(image.shape[0], *np.stack([count, edge], axis=1).ravel())
        order = [0, *range(1, 2 * dims, 2), *range(2, 2 * dims + 1, 2)]  # channel, all block indices, all inner indices
        blocks = split.transpose(order).reshape(image.shape[0], count.prod(), edge.prod())
        chosen = np.flatnonzero(self.R.rand(count.prod()) < self.share)
        permutation = self.R.rand(len(chosen), edge.prod()).argsort(axis=1)
        blocks[:, chosen] = np.take_along_axis(blocks[:, chosen], permutation[None], axis=2)
        merged = blocks.reshape(image.shape[0], *count, *edge).transpose(np.argsort(order))
        image[region] = merged.reshape(image[region].shape)
        return image


class RandBezierIntensity(_RandArray):
    """
    Map intensities by a random increasing cubic Bezier curve from (0, 0) to (1, 1) (Models Genesis' non-linear
    intensity transformation). ``monai.transforms.RandHistogramShift`` is piecewise linear.

    Args:
        prob: probability of the transform.
        samples: points at which the curve is tabulated.
    """

    def __init__(self, prob: float = 0.9, samples: int = 1000) -> None:
        RandomizableTransform.__init__(self, prob)
        self.samples = samples

    def apply(self, image: np.ndarray) -> np.ndarray:
        inner = self.R.rand(2, 2)  # two control points anywhere in the unit square: x(t) and y(t) never decrease
        points = np.vstack([np.zeros(2), inner, np.ones(2)])
        t = np.linspace(0, 1, self.samples)[:, None]
        basis = np.hstack([(1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3])
        x, y = (basis @ points).T
        curve = np.interp(t[:, 0], x, y).astype(np.float32)  # at even steps: no search
        place = image.clip(0, 1) * np.float32(self.samples - 1)
        below = np.minimum(place.astype(np.int32), self.samples - 2)
        return curve[below] + (place - below.astype(np.float32)) * np.diff(curve)[below]


class RandToneCurve(_RandArray):
    """
    Map intensities by a piecewise linear curve through random values, increasing for most images: what a descriptor of
    places must not depend on, up to another contrast of the same anatomy.

    Args:
        prob: probability of the transform.
        knots: points of the curve, evenly spaced over 0..1.
        increasing: probability that it does not fall.
    """

    def __init__(self, prob: float = 0.8, knots: int = 8, increasing: float = 0.85) -> None:
        RandomizableTransform.__init__(self, prob)
        if knots < 2:
            raise InputError(f"a tone curve needs 2 knots or more, not {knots}")
        self.knots, self.increasing = knots, increasing

    def apply(self, image: np.ndarray) -> np.ndarray:
        values = self.R.rand(self.knots)
        if self.R.rand() < self.increasing:
            values = values.cumsum()
        values = (values - values.min()) / max(float(np.ptp(values)), 1e-6)
        return np.interp(image.clip(0, 1), np.linspace(0, 1, self.knots), values).astype(np.float32)


class RandInpaint(_RandArray):
    """
    Fill boxes with uniform noise of 0..1.

    A first box, then further ones, each with probability ``more``, up to ``max_boxes``
    (``monai.transforms.RandCoarseDropout`` draws their number evenly and their sizes in voxels).

    Args:
        prob: probability of the transform.
        max_boxes: largest number of boxes.
        more: probability of each further box.
        smallest: smallest box edge as a fraction of the image's; at least 1 voxel.
        largest: largest box edge as a fraction of the image's; at least 1 voxel.
    """

    def __init__(
        self, prob: float = 1.0, max_boxes: int = 30, more: float = 0.95, smallest: float = 0.1, largest: float = 0.2
    ) -> None:
        RandomizableTransform.__init__(self, prob)
        if not 0 < smallest <= largest <= 1:
            raise InputError(f"in-painting: 0 < smallest {smallest} <= largest {largest} <= 1 does not hold")
        self.max_boxes, self.more, self.smallest, self.largest = max_boxes, more, smallest, largest

    def apply(self, image: np.ndarray) -> np.ndarray:
        for box in range(self.max_boxes):
            if box and self.R.rand() >= self.more:
                break
            edges = [self._edge(n) for n in image.shape[1:]]
            starts = [self.R.randint(n - edge + 1) for n, edge in zip(image.shape[1:], edges, strict=True)]
            region = (slice(None), *(slice(a, a + edge) for a, edge in zip(starts, edges, strict=True)))
            image[region] = self.R.rand(*image[region].shape)
        return image

    def _edge(self, size: int) -> int:
        low, high = (max(1, round(fraction * size)) for fraction in (self.smallest, self.largest))
        return self.R.randint(low, high + 1)


class RandEachd(MapTransform, Randomizable):
    """
    Apply random array transforms to each key with draws of its own (MONAI's dictionary transforms share one draw).

    Args:
        keys: keys of the images.
        transforms: array transforms, applied in order.
        allow_missing_keys: skip keys that are not there.
    """

    def __init__(self, keys: KeysCollection, transforms: Sequence[Callable], allow_missing_keys: bool = False) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.transforms = list(transforms)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> RandEachd:
        """Seed this and, from it, every transform."""
        super().set_random_state(seed, state)
        for transform in self.transforms:
            if isinstance(transform, Randomizable):
                transform.set_random_state(seed=int(self.R.randint(2**31)))
        return self

    def randomize(self, data: Any) -> None:
        """Nothing is drawn here: the transforms draw for themselves."""

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        """
        Args:
            data: images ``(C, D, H, W)`` by key.

        Returns:
            a new dictionary.
        """
        result = dict(data)
        for key in self.key_iterator(result):
            image = result[key]
            for transform in self.transforms:
                image = transform(image)
            # MONAI's transforms make a plain tensor a MetaTensor, and batches of one with meta and one without fail
            if isinstance(image, MetaTensor) and not isinstance(result[key], MetaTensor):
                image = image.as_tensor()
            result[key] = image
        return result
