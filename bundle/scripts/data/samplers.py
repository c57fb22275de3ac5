# SPDX-License-Identifier: Apache-2.0
"""What is drawn at random for training, numbered: any number of workers or processes and any restart draws the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from monai.transforms import Randomizable
from torch.utils.data import Dataset
from torch.utils.data.distributed import DistributedSampler

from ..errors import InputError
from .cache import cached_dataset, prepared


class DrawSampler(DistributedSampler):
    """
    Numbers the draws on from epoch to epoch and shares them out over the ranks: the ranks of one step draw together
    what one process with the whole batch would draw. MONAI's engines tell it the epoch, also after a restart.

    Args:
        dataset: takes the numbers; its length is that of an epoch.
        num_replicas: number of processes; that of ``torch.distributed``, or 1.
        rank: this process; that of ``torch.distributed``, or 0.
    """

    def __init__(self, dataset: Dataset, num_replicas: int | None = None, rank: int | None = None) -> None:
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            num_replicas, rank = num_replicas or 1, rank or 0
        super().__init__(dataset, num_replicas, rank, shuffle=False)
        self.done = 0

    def begin_after(self, done: int) -> None:
        """Leave out this rank's first ``done`` draws of the next epoch: an earlier process went through them."""
        self.done = done

    def __iter__(self) -> Iterator[int]:
        start = self.epoch * self.total_size + self.rank
        draws = range(start, start + self.total_size, self.num_replicas)[self.done :]
        self.done = 0
        return iter(draws)


class CaseDraws(Dataset):
    """
    Cases drawn with replacement, one at a time, and augmented. Draw number ``n`` depends on ``(seed, n)`` alone.

    Args:
        data: dictionaries of paths (and whatever else the transforms take).
        transform: deterministic preparation of a case, done once and kept (see :func:`~scripts.data.cached_dataset`).
        augmentation: whatever is random in it is seeded by the draw.
        length: draws of one epoch.
        seed: seed of the draws.
        cache_dir: folder of a disk cache; None keeps prepared cases in memory.
        cache_rate: share of the cases kept in memory.
        weights: how often each case is drawn, relative to the others; None for equally often.

    Raises:
        InputError: without a case.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        transform: Callable,
        augmentation: Callable,
        length: int = 100,
        seed: int = 0,
        cache_dir: str | None = None,
        cache_rate: float = 1.0,
        weights: Sequence[float] | None = None,
    ) -> None:
        if not len(data) or length < 1:
            raise InputError(f"training needs a case and a draw at least, there are {len(data)} and {length}")
        self.cases = cached_dataset(data, transform, cache_dir, cache_rate)
        self.shares = None if weights is None else np.asarray(weights, dtype=float) / np.sum(weights)
        self.count, self.augmentation, self.length, self.seed = len(data), augmentation, length, seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, draw: int) -> Any:
        """
        Args:
            draw: number of the draw; it may exceed the length (see :class:`DrawSampler`).

        Returns:
            what the augmentation returns.
        """
        rng = np.random.default_rng([self.seed, draw])
        index = int(rng.choice(self.count, p=self.shares))
        case = deepcopy(prepared(self.cases, index))  # MONAI's transforms write into meta data
        if isinstance(self.augmentation, Randomizable):
            self.augmentation.set_random_state(seed=int(rng.integers(2**31)))
        return self.augmentation(case)
