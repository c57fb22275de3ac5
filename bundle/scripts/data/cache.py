# SPDX-License-Identifier: Apache-2.0
"""Prepared scans: scaled, cached."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

from monai.data import CacheDataset, PersistentDataset
from monai.data.utils import pickle_hashing
from monai.utils import convert_to_tensor
from torch.utils.data import Dataset

from ..errors import InputError
from ..files import load_file, save_atomically
from ..progress import progress
from .scan_checks import check_scan
from .stamps import file_stamp


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


class MemoryCache(CacheDataset):
    """``CacheDataset`` with a bar that does not fill a log file; see there."""

    def _fill_cache(self, indices: Sequence[int] | None = None) -> list[Any]:
        wanted = range(self.cache_num) if indices is None else indices
        with ThreadPool(self.num_workers) as pool:
            return list(progress(pool.imap(self._load_cache_item, wanted), "Preparing scans", len(wanted)))


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
        :class:`MemoryCache` or :class:`DiskCache`.

    Raises:
        InputError: naming a file that cannot be read any more.
    """
    try:
        if cache_dir:
            stamped = [
                {**item, "stamp": [file_stamp(item[key]) for key in ("image", "label") if key in item]} for item in data
            ]
            return DiskCache(stamped, transform, cache_dir=cache_dir, hash_transform=pickle_hashing)
        return MemoryCache(data, transform, cache_rate=cache_rate, num_workers=workers)
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
