# SPDX-License-Identifier: Apache-2.0
"""Settings planned from a fingerprint: voxel size, crop, intensities, channels and batch for a memory budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import check_numbers
from .fingerprint import Fingerprint

VOXELS = 96**3
"""Voxels of a crop where no memory budget is given."""
MULTIPLE, SHORTEST = 8, 16
"""Of the edges of a crop: they are multiples for three poolings, and no shorter."""
BYTES_A_VOXEL, BYTES_A_CHANNEL = 2200, 110
"""Memory of a training step by voxel of the crop and pair: the second times the channels at full size
(table in ``docs/scaling.md``)."""
BASE, SHARE = 0.5e9, 0.8
"""Memory of the libraries, in bytes; share of the budget that is planned with."""
FEATURES, LARGEST_BATCH = (16, 32, 64, 128), 4
"""Channels of the shipped weights."""
AIR, HIGHEST = -500, 4096
"""Hounsfield units: a scan whose lowest value is below the first, and percentile 99.5 below the second, is a CT."""
LIMITS = (-1024, 3072)


def size_for(extent: Sequence[float], pixdim: Sequence[float], most: int | None = None) -> list[int]:
    """
    The smallest multiples of 8 voxels that hold an extent, 16 at least. Of more voxels than there may be, the longest
    axis gives way: thin stacks keep their whole plane.

    Args:
        extent: in mm.
        pixdim: voxel size, mm.
        most: voxels that there may be; None for any number.
    """
    voxels = np.array(extent) / np.array(pixdim)
    size = [max(SHORTEST, MULTIPLE * math.ceil(round(n, 3) / MULTIPLE)) for n in voxels.tolist()]
    while most is not None and math.prod(size) > most and max(size) > SHORTEST:
        size[size.index(max(size))] -= MULTIPLE
    return size


class GridPlan:
    """
    Settings for a cohort. Each is a method of those that come before it, so that one given by hand counts for the
    others: ``features``, ``pixdim``, ``spatial_size``, ``batch_size``; ``intensity``, ``window``.

    Args:
        fingerprint: of the scans.
        memory: budget of a training, GB; None for a crop of up to 96 x 96 x 96 voxels, the shipped channels, one pair.
        show: print each choice with its reason, which ``reasons`` keeps too.
        largest: hold the largest extents along each axis, not the median ones: nothing is cut off.

    Raises:
        InputError: for a budget that is too small.
    """

    def __init__(
        self, fingerprint: Fingerprint, memory: float | None = None, show: bool = True, largest: bool = False
    ) -> None:
        if memory is not None:
            check_numbers({"memory": memory}, lowest=1)
        self.fingerprint, self.memory, self.show = fingerprint, memory, show
        self.voxel, self.kind = np.median(fingerprint.spacings, 0), "largest" if largest else "median"
        self.reasons: dict[str, str] = {}
        self.extent = (np.max if largest else np.median)(fingerprint.extents, 0)
        self.scans = f"{len(fingerprint.scans)} scans"

    def most_voxels(self, features: Sequence[int]) -> int:
        """Voxels of a batch that the budget allows."""
        if self.memory is None:
            return VOXELS
        return int((SHARE * self.memory * 1e9 - BASE) / (BYTES_A_VOXEL + BYTES_A_CHANNEL * features[0]))

    def features(self) -> list[int]:
        """Channels of the levels: those of the shipped weights, or twice as many where half the budget is left."""
        wider = [2 * channels for channels in FEATURES]
        whole = math.prod(size_for(self.extent, self.voxel))
        if self.memory is not None and 2 * whole <= self.most_voxels(wider):
            return self._chosen("features", wider, f"the whole scan fits twice into {self.memory:g} GB with them")
        return self._chosen("features", list(FEATURES), "those of the shipped weights")

    def pixdim(self, features: Sequence[int]) -> list[float]:
        """Voxel size, mm: the median scan's, its finest axes coarsened until the scan fits as a whole."""
        most, finest = self.most_voxels(features), float(self.voxel.min())
        sampled = finest
        while math.prod(size_for(self.extent, np.maximum(self.voxel, sampled).tolist())) > most:
            sampled *= 1.02
        pixdim = [float(f"{n:.3g}") for n in np.maximum(self.voxel, sampled)]
        why = f"{self.scans}, median {' x '.join(f'{n:.3g}' for n in self.voxel)} mm"
        if sampled > finest:
            why += f", coarsened until the {self.kind} scan is at most {most:,} voxels"
        return self._chosen("pixdim", pixdim, why)

    def spatial_size(self, pixdim: Sequence[float], features: Sequence[int]) -> list[int]:
        """Voxels of the crop: the whole scan; its longest axis gives way where that is more than the budget allows."""
        most = self.most_voxels(features)
        whole, size = size_for(self.extent, pixdim), size_for(self.extent, pixdim, most)
        why = f"{self.scans}, {self.kind} {' x '.join(f'{n:.3g}' for n in self.extent)} mm, multiples of {MULTIPLE}"
        if size != whole:
            why += f", the longest axis cut until it is at most {most:,} voxels"
        return self._chosen("spatial_size", size, why)

    def batch_size(self, spatial_size: Sequence[int], features: Sequence[int]) -> int:
        """Pairs in a step: one, or as many as the budget allows, four at most."""
        if self.memory is None:
            return self._chosen("batch_size", 1, "no --memory was given")
        fit = self.most_voxels(features) // math.prod(spatial_size)
        return self._chosen("batch_size", max(1, min(LARGEST_BATCH, fit)), f"{fit} fit into {self.memory:g} GB")

    def intensity(self) -> str:
        """A fixed "window" where most scans are CT by their values, else the "percentiles" of each scan."""
        lowest, low, _, high, _ = self.fingerprint.intensities.T  # a few odd voxels are no sign against it
        tomography = (lowest < AIR) & (low >= 4 * LIMITS[0]) & (high > 0) & (high < HIGHEST)
        count = f"{tomography.sum()} of {len(tomography)} scans read have the values of a CT, in Hounsfield units"
        return self._chosen("intensity", "window" if tomography.mean() > 0.5 else "percentiles", count)

    def window(self, intensity: str) -> list[float]:
        """Ends of the window: median percentiles 0.5 and 99.5 of the scans, in tens, within what a CT can show."""
        if intensity != "window":
            return [float(n) for n in (-1024, 1024)]  # not used
        low, high = np.median(self.fingerprint.intensities[:, [1, 3]], 0)
        ends = [max(LIMITS[0], 10 * math.floor(low / 10)), min(LIMITS[1], 10 * math.ceil(high / 10))]
        return self._chosen("window", [float(n) for n in ends], "median percentiles 0.5 and 99.5 of the scans")

    def _chosen(self, name: str, value: Any, why: str) -> Any:
        self.reasons[name] = why
        if self.show:
            print(f"planned {name:13} {value}   ({why})", flush=True)
        return value
