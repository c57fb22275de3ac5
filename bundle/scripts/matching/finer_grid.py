# SPDX-License-Identifier: Apache-2.0
"""A match carried on to a finer grid, towards the scans' own voxels, on which they are sampled anew."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from monai.data import MetaTensor
from monai.utils import convert_to_tensor

from ..spatial.scanner_space import homogeneous, resample
from ..spatial.warp import sample, voxel_grid
from ..transforms.intensity import RANGE, scale_between
from ..transforms.padding import FillPaddingd

WORTH = 1.2
"""A finer grid is used where its voxels are at least this much smaller."""


class FinerGrid(NamedTuple):
    """
    A grid over the same box as a prepared one, with voxels smaller by a factor.

    Args:
        factor: voxels of this grid a prepared one, along each axis.
        size: N integers.
        to_prepared: ``(N + 1, N + 1)``, its voxels to prepared voxels.
    """

    factor: float
    size: list[int]
    to_prepared: torch.Tensor

    @classmethod
    def of(
        cls, prepared: MetaTensor, original: MetaTensor, finest: float, most_voxels: float = math.inf
    ) -> FinerGrid | None:
        """
        Args:
            prepared: the fixed image, ``(1, C, D, H, W)`` with its affine.
            original: the same scan in its own grid.
            finest: smallest voxel of this grid, as a share of a prepared one.
            most_voxels: of this grid.

        Returns:
            the grid with voxels of the original's smallest edge, of ``finest``, or as small as ``most_voxels`` allows;
            None where that is hardly finer.
        """
        n = prepared.dim() - 2
        edges = [image.affine[0][:n, :n].norm(dim=0) for image in (prepared, original)]
        room = (most_voxels / prepared.shape[2:].numel()) ** (1 / n)
        factor = float(min(edges[0].min() / edges[1].min(), 1 / finest, room))
        if factor < WORTH:
            return None
        size = [round(factor * length) for length in prepared.shape[2:]]
        to_prepared = torch.eye(n + 1, dtype=torch.float64) / factor
        to_prepared[:n, n] = (1 / factor - 1) / 2
        to_prepared[n, n] = 1
        return cls(factor, size, to_prepared)

    def affine(self, prepared: MetaTensor) -> torch.Tensor:
        """Voxels of this grid to millimetres, ``(N + 1, N + 1)``, over the box of a prepared image."""
        return prepared.affine[0].double().cpu() @ self.to_prepared

    def image(self, prepared: MetaTensor, original: MetaTensor) -> torch.Tensor:
        """
        A scan on this grid, with the intensities of its prepared image.

        Args:
            prepared: ``(1, C, D, H, W)``, from ``scale_intensity``.
            original: ``(1, C, ...)`` in its own grid.

        Returns:
            ``(1, C, *size)`` within 0..1, 0 outside the scan.
        """
        own = convert_to_tensor(original[0], torch.float32, device=torch.device("cpu"), track_meta=False)
        filled = FillPaddingd("image")({"image": own})
        ends = [(float(low), float(high)) for low, high in prepared.meta[RANGE]]
        nowhere = torch.zeros(len(self.size), *self.size)
        scaled = scale_between(filled["image"], ends)
        scaled = convert_to_tensor(scaled, track_meta=False).to(prepared.device)
        return resample(scaled, original.affine[0], nowhere.to(scaled), self.affine(prepared))[None]

    def affine_map(self, affine: torch.Tensor) -> torch.Tensor:
        """The affine map ``(B, N, N + 1)`` of prepared voxels in voxels of this grid."""
        here = self.to_prepared.to(affine.device)
        whole = torch.stack([homogeneous(matrix) for matrix in affine.double()])
        return (torch.linalg.inv(here) @ whole @ here)[:, :-1].to(affine.dtype)

    def finer(self, displacement: torch.Tensor) -> torch.Tensor:
        """A displacement ``(B, N, D, H, W)`` in prepared voxels on this grid, ``(B, N, *size)`` in its voxels."""
        position = self._between(displacement, self.size, 1 / self.factor)
        return self.factor * sample(displacement, position, padding_mode="border")

    def coarser(self, displacement: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
        """The inverse of :meth:`finer`, at the voxels of the prepared grid of that size."""
        position = self._between(displacement, size, self.factor)
        return sample(displacement, position, padding_mode="border") / self.factor

    @staticmethod
    def _between(like: torch.Tensor, size: Sequence[int], scale: float) -> torch.Tensor:
        position = scale * voxel_grid(size, like) + (scale - 1) / 2
        return position.expand(len(like), *position.shape)
