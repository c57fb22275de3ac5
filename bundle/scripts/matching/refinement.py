# SPDX-License-Identifier: Apache-2.0
"""Refinement of a match for the pair at hand: small smooth updates along the gradient of the local NCC, composed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from ..errors import InputError, check_numbers
from ..losses.local_ncc import box_sum
from ..spatial.displacement import inside_volume
from ..spatial.level_grid import from_level, on_level
from ..spatial.smoothing import gaussian
from ..spatial.warp import compose, warp


class LocalNCCGradient:
    """
    The squared local normalised cross-correlation of warped images with a fixed one, and its gradient in closed form:
    box sums of the windows' coefficients, several times faster than automatic differentiation.

    Args:
        fixed: ``(B, 1, D, H, W)``.
        mask: voxels that count, ``(B, 1, D, H, W)``.
        window: odd edge of the window, in voxels.
        epsilon: added to the variances.
    """

    def __init__(self, fixed: torch.Tensor, mask: torch.Tensor, window: int, epsilon: float) -> None:
        self.window, self.epsilon = window, epsilon
        self.mask = mask.to(fixed)
        self.fixed = fixed * self.mask
        self.count = box_sum(self.mask, window).clamp(min=1)
        first, second = (box_sum(torch.cat([self.fixed, self.fixed**2], dim=1), window) / self.count).chunk(2, dim=1)
        self.mean, self.variance = first, (second - first**2).clamp(min=0) + epsilon

    def __call__(self, warped: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            warped: ``(B, 1, D, H, W)``.

        Returns:
            the mean over the mask, ``(B,)``, and the gradient of the SUM over it, ``(B, 1, D, H, W)``.
        """
        warped = warped * self.mask
        sums = box_sum(torch.cat([warped, warped**2, warped * self.fixed], dim=1), self.window) / self.count
        mean, square, product = sums.chunk(3, dim=1)
        variance = (square - mean**2).clamp(min=0) + self.epsilon
        covariance = product - mean * self.mean
        along = 2 * covariance / (self.variance * variance) * self.mask
        across = along * covariance / variance
        value = (along * covariance / 2).flatten(1).sum(dim=1) / self.mask.flatten(1).sum(dim=1).clamp(min=1)
        along, across = along / self.count, across / self.count
        windows = torch.cat([along, along * self.mean, across, across * mean], dim=1)
        slope, offset, own, centre = box_sum(windows, self.window).chunk(4, dim=1)
        return value, (self.fixed * slope - offset - warped * own + centre) * self.mask


def _spatial_gradient(image: torch.Tensor) -> torch.Tensor:
    """Central differences ``(B, N, D, H, W)`` of ``(B, 1, D, H, W)``; 0 along an axis of one voxel."""
    axes = [axis for axis in range(1, image.dim() - 1) if image.shape[axis + 1] > 1]
    found = dict(zip(axes, torch.gradient(image[:, 0], dim=axes), strict=True))
    return torch.stack([found.get(axis, torch.zeros_like(image[:, 0])) for axis in range(1, image.dim() - 1)], dim=1)


class Refinement:
    """
    Goes on with a match, from coarse to fine, as greedy diffeomorphic registration does (Yushkevich et al., Alzheimer's
    & Dementia 12, P126, 2016): the gradient of the similarity, smoothed, scaled to one voxel at its largest, is
    composed with the map, and the map is smoothed a little. Such steps do not fold.

    Args:
        steps: largest number of steps on each grid.
        strides: of these grids, from coarse to fine: 2 for half the size, 1 for the images' own.
        window: odd edge of the windows of the local NCC, in voxels.
        update_sigma: smoothing of an update, in voxels.
        field_sigma: smoothing of the whole local displacement after each step, in voxels.
        step: length of the largest update, in voxels.
        tolerance: a grid is done when five steps raise the similarity by less than this share of it.
        epsilon: added to the variances of the windows.

    Raises:
        InputError: for numbers that cannot be meant.
    """

    def __init__(
        self,
        steps: Sequence[int] = (40, 30),
        strides: Sequence[int] = (2, 1),
        window: int = 5,
        update_sigma: float = 1.7,
        field_sigma: float = 0.7,
        step: float = 1.0,
        tolerance: float = 0.002,
        epsilon: float = 1e-4,
    ) -> None:
        check_numbers({"refinement steps": list(steps), "refinement strides": list(strides)}, count=0, whole=True)
        if len(steps) != len(strides) or min(strides) < 1:
            raise InputError(f"refinement needs steps for each grid: {list(steps)} for the strides {list(strides)}")
        if window < 3 or window % 2 == 0:
            raise InputError(f"the NCC window of the refinement must be odd and at least 3 voxels, not {window}")
        self.steps, self.strides, self.window = list(steps), list(strides), window
        self.update_sigma, self.field_sigma, self.step = update_sigma, field_sigma, step
        self.tolerance, self.epsilon = tolerance, epsilon

    @torch.no_grad()
    def __call__(
        self, fixed: torch.Tensor, moving: torch.Tensor, displacement: torch.Tensor, frame: torch.Tensor | None = None
    ) -> torch.Tensor:
        """
        Args:
            fixed: ``(B, C, D, H, W)`` within 0..1; channels are averaged.
            moving: of the same shape.
            displacement: where to begin, ``(B, N, D, H, W)`` in voxels.
            frame: that of the affine map, of the same shape: what the displacement differs from it is the local one,
                which is kept smooth; None for the identity.

        Returns:
            the refined displacement, ``(B, N, D, H, W)`` in voxels.
        """
        fixed, moving = (image.float().mean(dim=1, keepdim=True) for image in (fixed, moving))
        found = displacement.float()
        frame = torch.zeros_like(found) if frame is None else frame.float()
        if len(fixed) > 1:  # when a pair is done must not depend on the others of its batch
            pairs = zip(*(of.split(1) for of in (fixed, moving, found, frame)), strict=True)
            return torch.cat([self(*pair) for pair in pairs])
        for stride, steps in zip(self.strides, self.steps, strict=True):
            if stride == 1:
                found = self._on_grid(fixed, moving, found, frame, steps)
                continue
            level = [max(1, n // stride) for n in found.shape[2:]]
            start = on_level(found, level, stride) / stride
            flat = on_level(frame, level, stride) / stride
            better = self._on_grid(_shrink(fixed, stride), _shrink(moving, stride), start, flat, steps)
            found = found + from_level((better - start) * stride, found.shape[2:], stride)
        return found

    def _on_grid(
        self, fixed: torch.Tensor, moving: torch.Tensor, start: torch.Tensor, frame: torch.Tensor, steps: int
    ) -> torch.Tensor:
        found, values = start, []
        similarity = LocalNCCGradient(fixed, inside_volume(start), self.window, self.epsilon)
        for number in range(steps):
            warped = warp(moving, found, padding_mode="border")
            value, gradient = similarity(warped)
            values.append(float(value))
            if number >= 5 and values[-1] - values[-6] < self.tolerance * values[-1]:
                break
            update = gaussian(gradient * _spatial_gradient(warped), self.update_sigma)
            # not `norm`, which takes forty times as long over an axis of three
            longest = update.square().sum(dim=1).flatten(1).amax(dim=1).sqrt().clamp(min=1e-12)
            update = update * (self.step / longest).reshape(-1, *[1] * (update.dim() - 1))
            found = frame + gaussian(compose(found, update) - frame, self.field_sigma)
        return found


def _shrink(image: torch.Tensor, stride: int) -> torch.Tensor:
    pool = functional.avg_pool3d if image.dim() == 5 else functional.avg_pool2d
    return pool(image, [min(stride, n) for n in image.shape[2:]])
