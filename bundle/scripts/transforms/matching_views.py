# SPDX-License-Identifier: Apache-2.0
"""Two views on one grid: of the same scan, related by a known map, or of the scans of two people."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.transforms import Randomizable, Transform
from torch.nn import functional

from ..errors import InputError
from ..spatial.linear_maps import between_lengths
from ..spatial.smoothing import box_mean
from ..spatial.warp import affine_about_centre, fuse, linear_matrix, sample, voxel_grid


class RandMatchingViewsd(Randomizable, Transform):
    """
    Draw the views of a training step from two prepared scans of any size, in one interpolation each.

    Both views have the same place and voxel size, drawn for each pair: a place at which the grid lies within the scans
    as far as they reach, and a factor of the voxel size up to the pair's ``zoom_out``. Each view has an affine map of
    its own, the fixed one an elastic map before it. So ``fixed(p) = scan(A(p + u(p)))`` and ``moving(q) = scan(B(q))``;
    of one scan the true map from the fixed to the moving view is ``B^-1 A (p + u(p))``, exactly.

    Args:
        spatial_size: size of the views, N integers.
        rotate: largest angle about each axis, in radians.
        scale: largest logarithm of the change of scale, of all axes together and of each by itself.
        shear: largest shear, in radians.
        translate: largest translation as a fraction of the grid's extent.
        far: probability of a translation up to three times as far, so that a part of one view is not in the other.
        elastic: largest standard deviation of the elastic map at its control points, in voxels.
        control: voxels from one control point to the next.
        disturbance: standard deviation, in voxels, of what is added to a share of the known elastic map, for the local
            matching to find back.
        spacing: of the scans' voxels along each axis, in which they are turned and stretched; None for the same.
        centred: for measuring: both views at the middle of the scans and with their largest voxels, not drawn.
        image_key: the fixed image.
        moving_key: the moving image.
        label_keys: their label maps, where there are any, sampled at the nearest voxel.
    """

    def __init__(
        self,
        spatial_size: Sequence[int],
        rotate: float = 0.436332,
        scale: float = 0.1,
        shear: float = 0.08,
        translate: float = 0.06,
        far: float = 0.25,
        elastic: float = 4.0,
        control: float = 10.0,
        disturbance: float = 1.2,
        spacing: Sequence[float] | None = None,
        centred: bool = False,
        image_key: str = "image",
        moving_key: str = "moving",
        label_keys: Sequence[str] = ("image_label", "moving_label"),
    ) -> None:
        if min(elastic, disturbance, scale, translate) < 0 or control <= 0 or not 0 <= far <= 1:
            raise InputError(
                "matching views: elastic, disturbance, scale and translate must not be negative, control must be "
                f"positive and far lie within 0 and 1: {elastic}, {disturbance}, {scale}, {translate}, {control}, {far}"
            )
        self.size, self.dims = list(spatial_size), len(spatial_size)
        self.spacing = spacing or [1.0] * self.dims
        self.rotate, self.scale, self.shear, self.translate, self.far = rotate, scale, shear, translate, far
        self.elastic, self.control, self.disturbance = elastic, control, disturbance
        self.centred, self.image_key, self.moving_key = centred, image_key, moving_key
        self.label_keys = tuple(label_keys)

    def _uniform(self, count: int, bound: float) -> torch.Tensor:
        return torch.as_tensor(self.R.uniform(-bound, bound, (1, count)), dtype=torch.float32)

    def draw_affine(self) -> torch.Tensor:
        """A random affine map of the grid, ``(1, N, N + 1)``."""
        n = self.dims
        scale = (self._uniform(n, self.scale) + self._uniform(1, self.scale)).exp()
        linear = linear_matrix(
            self._uniform(3 if n == 3 else 1, self.rotate), scale, self._uniform(n * (n - 1), self.shear)
        )
        reach = self.translate * (3 if self.R.uniform() < self.far else 1)
        linear = between_lengths(linear, [1 / edge for edge in self.spacing])
        return affine_about_centre(linear, self._uniform(n, reach) * torch.tensor(self.size), self.size)

    def draw_field(self, deviation: float) -> torch.Tensor:
        """A random smooth field of that standard deviation at its control points, ``(1, N, *spatial_size)`` voxels."""
        shape = [max(3, round(n / self.control)) for n in self.size]
        noise = torch.as_tensor(self.R.standard_normal((1, self.dims, *shape)), dtype=torch.float32) * deviation
        mode = "trilinear" if self.dims == 3 else "bilinear"
        return box_mean(functional.interpolate(noise, size=self.size, mode=mode, align_corners=True), times=2)

    def randomize(self, data: Any = None) -> None:
        """Everything is drawn while the views are made."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """
        Args:
            data: the scans ``(C, D, H, W)``, any size; ``same``, whether they are one scan; ``zoom_out``, the largest
                factor of their voxel size (1 where it is missing).

        Returns:
            the views ``(C, *spatial_size)`` under the keys of the scans, and

            - ``known``: 1 where the map is known, else 0, a scalar tensor;
            - ``known_affine``: ``B^-1 A``, ``(N, N + 1)``;
            - ``known_displacement``: of the whole map, ``(N, *spatial_size)`` in voxels;
            - ``start_displacement``: a share of the elastic map, disturbed, ``(N, *spatial_size)`` in voxels.
        """
        largest = max(1.0, float(data.get("zoom_out", 1.0)))
        factor = largest if self.centred else math.exp(self.R.uniform(0, math.log(largest)))
        place = torch.as_tensor(self.R.uniform(0, 1, self.dims), dtype=torch.float32)
        place = torch.full_like(place, 0.5) if self.centred else place
        of_fixed, of_moving = self.draw_affine(), self.draw_affine()
        elastic = self.draw_field(self.elastic * self.R.uniform())
        start = elastic * self.R.uniform() + self.draw_field(self.disturbance)
        # in this order: another rounding would draw other places to learn from
        back = torch.linalg.inv(of_moving[:, :, :-1])
        offset = back @ (of_fixed[:, :, -1:] - of_moving[:, :, -1:])
        known_affine = torch.cat([back @ of_fixed[:, :, :-1], offset], dim=2)
        maps = fuse(of_fixed, elastic), fuse(of_moving, torch.zeros_like(elastic))
        views: dict[Hashable, Any] = {
            key: self._view(torch.as_tensor(data[key]), displacement, factor, place, mode)
            for keys, mode in (((self.image_key, self.moving_key), "bilinear"), (self.label_keys, "nearest"))
            for key, displacement in zip(keys, maps, strict=True)
            if key in data
        }
        return {
            **data,
            **views,
            "known": torch.tensor(float(bool(data.get("same", False)))),
            "known_affine": known_affine[0],
            "known_displacement": fuse(known_affine, elastic)[0],
            "start_displacement": start[0],
        }

    def _view(
        self, scan: torch.Tensor, displacement: torch.Tensor, factor: float, place: torch.Tensor, mode: str
    ) -> torch.Tensor:
        size, grid = torch.tensor(scan.shape[1:]).float(), torch.tensor(self.size).float()
        room = (size - factor * grid).clamp(min=0)
        centre = (size - 1) / 2 + (place - 0.5) * room
        shape = [1, -1] + [1] * self.dims
        position = voxel_grid(self.size, displacement) + displacement - ((grid - 1) / 2).reshape(shape)
        return sample(scan[None].float(), factor * position + centre.reshape(shape), mode)[0]
