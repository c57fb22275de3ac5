# SPDX-License-Identifier: Apache-2.0
"""Random pairs of different subjects, reproducible from one seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import Randomizable
from torch.utils.data import Dataset

from ..errors import InputError, check_numbers
from .cache import cached_dataset, prepared
from .cohorts import by_cohort


class PairDataset(Dataset):
    """
    Pairs of scans of two different subjects of the same cohort; every cohort is drawn equally often. Draw number ``n``
    depends on ``(seed, n)`` alone: any number of workers, any rank and any restart gives the same pairs with the same
    augmentation.

    Args:
        data: scans: dictionaries with ``image``, ``subject`` and possibly ``label`` and ``cohort``.
        transform: deterministic preparation of ONE scan, done once and kept (see :func:`~scripts.data.cached_dataset`);
            None where the data are ready tensors.
        augmentation: applied to the pair; whatever is random in it is seeded by the draw.
        length: draws of one epoch.
        seed: seed of the draws.
        cache_dir: folder of a disk cache; None keeps prepared scans in memory.
        cache_rate: share of the scans kept in memory.
        known_share: share of the draws in which both images are the same scan, which the augmentation then turns into
            two views related by a known map (see :class:`~scripts.transforms.RandMatchingViewsd`).

    Raises:
        InputError: with fewer than two subjects in a cohort.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        transform: Callable | None = None,
        augmentation: Callable | None = None,
        length: int = 100,
        seed: int = 0,
        cache_dir: str | None = None,
        cache_rate: float = 1.0,
        known_share: float = 0.0,
    ) -> None:
        check_numbers({"known_share": known_share})
        if known_share > 1:
            raise InputError(f"known_share is a share, 0 to 1, not {known_share}: pass --known_share accordingly")
        codes = {subject: code for code, subject in enumerate(dict.fromkeys(scan["subject"] for scan in data))}
        self.subjects = np.array([codes[scan["subject"]] for scan in data])
        self.cohorts = [np.array(members) for members in by_cohort(data).values()] or [np.array([], dtype=int)]
        for members in self.cohorts:
            count = len(np.unique(self.subjects[members]))
            if count < 2:
                where = f" in {data[members[0]]['cohort']}" if len(self.cohorts) > 1 else ""
                raise InputError(f"matching needs scans of two or more subjects, there are {count}{where}")
        if length < 1:
            raise InputError(f"a data set of pairs needs a length of 1 or more, not {length}")
        self.names = [str(scan["image"]) if isinstance(scan["image"], str) else str(i) for i, scan in enumerate(data)]
        self.scans = data if transform is None else cached_dataset(data, transform, cache_dir, cache_rate)
        self.augmentation, self.length, self.seed = augmentation, length, seed
        self.known_share = known_share

    def __len__(self) -> int:
        return self.length

    def indices(self, draw: int) -> tuple[int, int, int]:
        """Fixed scan, moving scan (of another subject, or the same scan) and the augmentation's seed of a draw."""
        rng = np.random.default_rng([self.seed, draw])
        members = self.cohorts[0] if len(self.cohorts) == 1 else self.cohorts[int(rng.integers(len(self.cohorts)))]
        fixed = int(members[rng.integers(len(members))])
        others = members[self.subjects[members] != self.subjects[fixed]]
        moving, seed = int(rng.choice(others)), int(rng.integers(2**31))
        if self.known_share and rng.random() < self.known_share:
            moving = fixed
        return fixed, moving, seed

    def __getitem__(self, draw: int) -> dict[str, torch.Tensor]:
        """
        Args:
            draw: number of the draw; it may exceed the length (see :class:`~scripts.data.DrawSampler`).

        Returns:
            ``image`` (fixed), ``moving``, ``(C, D, H, W)`` each, the paths ``image_name`` and ``moving_name``, and
            where both scans have labels ``image_label`` and ``moving_label``; of scans with ``zoom_out`` (see
            :func:`~scripts.data.find_cohorts`) that and ``same``, whether both are one scan; after the augmentation.
        """
        fixed_index, moving_index, seed = self.indices(draw)
        fixed, moving = (prepared(self.scans, index) for index in (fixed_index, moving_index))
        names = {"image_name": self.names[fixed_index], "moving_name": self.names[moving_index]}
        pair = {"image": fixed["image"], "moving": moving["image"], **names}
        if "zoom_out" in fixed:
            pair |= {"same": fixed_index == moving_index, "zoom_out": fixed["zoom_out"]}
        if "label" in fixed and "label" in moving:
            pair |= {"image_label": fixed["label"], "moving_label": moving["label"]}
        if self.augmentation is None:
            return pair
        if isinstance(self.augmentation, Randomizable):
            self.augmentation.set_random_state(seed=seed)
        return self.augmentation(pair)
