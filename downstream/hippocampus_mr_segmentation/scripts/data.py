# Copyright (c) GVSL bundle contributors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Prepared scans: scaled, cached."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

from monai.data import CacheDataset, PersistentDataset
from monai.data.utils import pickle_hashing
from monai.transforms import ScaleIntensityRanged, ScaleIntensityRangePercentilesd, Transform
from monai.utils import convert_to_tensor
from torch.utils.data import Dataset

from .checkpoints import load_file, save_atomically
from .errors import InputError, check_numbers
from .reading import check_scan, file_stamp


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
        intensity: "percentiles" of each image (safe for any modality, needed for MR) or a fixed "window" (CT).
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
    if intensity == "percentiles":
        return ScaleIntensityRangePercentilesd(
            keys, percentiles[0], percentiles[1], b_min=0, b_max=1, clip=True, allow_missing_keys=allow_missing_keys
        )
    return ScaleIntensityRanged(
        keys, window[0], window[1], b_min=0, b_max=1, clip=True, allow_missing_keys=allow_missing_keys
    )


class DiskCache(PersistentDataset):
    """
    ``PersistentDataset`` whose files are written completely or not at all; one that cannot be read is made anew.
    MONAI's come by way of another folder, from where a move may be cut short, and end the training when they were.
    """

    def _cachecheck(self, item_transformed: Mapping[str, Any]) -> Any:
        name = self.hash_func(item_transformed).decode() + self.transform_hash
        path = Path(str(self.cache_dir)) / f"{name}.pt"
        if path.is_file():
            with suppress(InputError):
                return load_file(path)
        prepared = self._pre_transform(deepcopy(item_transformed))
        content = convert_to_tensor(prepared, convert_numeric=False, track_meta=False)
        save_atomically(content, path, option="cache_dir", part=f".{os.getpid()}")
        return content


def cached_dataset(
    data: Sequence[Mapping[str, Any]],
    transform: Callable,
    cache_dir: str | None = None,
    cache_rate: float = 1.0,
    workers: int = 2,
) -> Dataset:
    """
    Scans prepared once and kept: in memory, or with ``cache_dir`` on disk, where the next run finds them.

    Args:
        data: dictionaries of paths.
        transform: deterministic preprocessing.
        cache_dir: folder of the disk cache; an item is keyed by its paths, the files' sizes and times of change, and
            the parameters of the preprocessing.
        cache_rate: share kept in memory, without ``cache_dir``; the rest is read each time.
        workers: threads that fill the memory cache.

    Returns:
        ``CacheDataset`` or :class:`DiskCache`.

    Raises:
        InputError: naming a file that cannot be read any more.
    """
    try:
        if cache_dir:
            stamped = [
                {**item, "stamp": [file_stamp(item[key]) for key in ("image", "label") if key in item]} for item in data
            ]
            return DiskCache(stamped, transform, cache_dir=cache_dir, hash_transform=pickle_hashing)
        return CacheDataset(data, transform, cache_rate=cache_rate, num_workers=workers)
    except Exception as error:
        blame_file(data, error)
        raise


def prepared(scans: Any, index: int) -> Any:
    """
    An item of a data set of :func:`cached_dataset`, which may have to be read.

    Raises:
        InputError: naming a file that cannot be read any more.
    """
    try:
        return scans[index]
    except Exception as error:
        blame_file(scans.data[index : index + 1], error)
        raise


def blame_file(items: Sequence[Mapping[str, Any]], error: Exception) -> None:
    """Say which file has gone, or gone bad, since it was checked, if that is why reading failed."""
    for item in items:
        for key in ("image", "label"):
            problem = check_scan(item[key], constant=True) if isinstance(item.get(key), str) else None
            if problem is not None:
                raise InputError(f"{item[key]} {problem.split(';')[0]}; it was fine when training began") from error
