# SPDX-License-Identifier: Apache-2.0
"""Local matching by correlation: the similarity of the local features itself finds the displacement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.networks.layers.factories import Conv, Pool
from torch import nn
from torch.nn import functional

from ..errors import InputError
from ..spatial.warp import exponential, voxel_grid
from .blocks import initialise
from .matching_head import LocalHead
from .recorded import recorded

GPU_WIDTH = 8
"""Of which the fused attention on GPUs needs the channels to be a multiple: rows of 16 bytes in half precision too."""

OUTSIDE = -1e4  # similarity of a place outside the volume: no weight after the softmax


def expected_offset(
    fixed: torch.Tensor, moving: torch.Tensor, radius: int = 3, tile: int = 4, padded: bool | None = None
) -> torch.Tensor:
    """
    Where each fixed voxel's features are found in the moving image: the mean offset within ``radius`` voxels along each
    axis, weighted by the softmax of the dot products. Places outside the moving volume do not count.

    That is attention whose values are coordinates: tiles of fixed voxels ask the window of moving voxels around them,
    and PyTorch's fused kernel keeps no similarity, neither for the sum nor for the gradient.

    Args:
        fixed: ``(B, C, D, H, W)``, already multiplied by the inverse temperature.
        moving: ``(B, C, D, H, W)``.
        radius: largest offset along each axis, in voxels.
        tile: edge of a tile; a larger one copies less and computes more that is thrown away.
        padded: to a multiple of :data:`GPU_WIDTH` channels; None everywhere but on a CPU, which would only be slower.

    Returns:
        ``(B, N, D, H, W)`` in voxels, within ``-radius .. radius``.
    """
    size, n = fixed.shape[2:], fixed.dim() - 2
    padded = fixed.device.type != "cpu" if padded is None else padded
    missing = [-edge % tile for edge in reversed(size)]
    inside = functional.pad(torch.zeros_like(moving[:, :1]), _around(missing, radius), value=OUTSIDE)
    keys = torch.cat([functional.pad(moving, _around(missing, radius)), inside], dim=1)
    queries = functional.pad(torch.cat([fixed, torch.ones_like(fixed[:, :1])], dim=1), _around(missing, 0))
    more = -queries.shape[1] % (GPU_WIDTH if padded else 1)  # channels of zeros, which no similarity sees
    if more:
        keys, queries = (functional.pad(of, [0, 0] * n + [0, more]) for of in (keys, queries))

    def coordinates(edge: int) -> torch.Tensor:  # (edge ** N, N)
        return voxel_grid([edge] * n, fixed).flatten(1).T

    offsets = coordinates(tile + 2 * radius) - radius
    near = (offsets - coordinates(tile)[:, None]).abs().amax(dim=2) <= radius
    tiles = _windows(queries, tile, tile)
    windows = _windows(keys, tile + 2 * radius, tile)
    values = functional.pad(offsets, (0, tiles.shape[-1] - n)).expand_as(windows)  # the fused kernel needs one width
    found = functional.scaled_dot_product_attention(tiles, windows, values, attn_mask=near, scale=1.0)
    offset = found[..., :n] - coordinates(tile)

    batch, counts = len(fixed), [-(-edge // tile) for edge in size]
    offset = offset.reshape(batch, *counts, *[tile] * n, n)
    interleaved = [axis for k in range(n) for axis in (1 + k, 1 + n + k)]
    offset = offset.permute(0, 2 * n + 1, *interleaved).reshape(batch, n, *[count * tile for count in counts])
    return _crop(offset, size)


def _crop(image: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """The first ``size`` voxels along each axis."""
    for axis, edge in enumerate(size):
        image = image.narrow(2 + axis, 0, edge)
    return image


def _around(missing: list[int], radius: int) -> list[int]:
    """Padding before and after each axis, last axis first."""
    return [amount for edge in missing for amount in (radius, radius + edge)]


def _windows(image: torch.Tensor, edge: int, step: int) -> torch.Tensor:
    """Cubes of a padded image ``(B, C, D, H, W)``, one every ``step`` voxels: ``(cubes, 1, edge ** N, C)``."""
    return _Windows.apply(image, edge, step) if image.requires_grad else _unfolded(image, edge, step)


def _unfolded(image: torch.Tensor, edge: int, step: int) -> torch.Tensor:
    n = image.dim() - 2
    for axis in range(2, 2 + n):
        image = image.unfold(axis, edge, step)
    return image.movedim(1, -1).reshape(-1, 1, edge**n, image.shape[1])


class _Windows(torch.autograd.Function):
    """
    :func:`_windows` with a gradient that adds overlapping cubes axis by axis: PyTorch's own, of ``unfold``, takes as
    long on a CPU as that of the attention.
    """

    @staticmethod
    def forward(ctx: Any, image: torch.Tensor, edge: int, step: int) -> torch.Tensor:
        ctx.shape, ctx.edge, ctx.step = image.shape, edge, step
        return _unfolded(image, edge, step)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        batch, channels, *size = ctx.shape
        n, counts = len(size), [(extent - ctx.edge) // ctx.step + 1 for extent in size]
        total = gradient.reshape(batch, *counts, *[ctx.edge] * n, channels)
        interleaved = [axis for k in range(n) for axis in (1 + k, 1 + n + k)]
        total = total.permute(0, *interleaved, 2 * n + 1)  # (B, cubes, edge, cubes, edge, ..., C)
        for axis, (extent, count) in enumerate(zip(size, counts, strict=True), start=1):
            pieces = total.split(ctx.step, dim=axis + 1)
            shape = [*total.shape[:axis], count + len(pieces) - 1, ctx.step, *total.shape[axis + 2 :]]
            added = total.new_zeros(shape)
            for place, piece in enumerate(pieces):  # cube i's piece j lies where cube i + j begins
                added.narrow(axis, place, count).narrow(axis + 1, 0, piece.shape[axis + 1]).add_(piece)
            total = added.flatten(axis, axis + 1).narrow(axis, 0, extent)
        return total.movedim(-1, 1), None, None


@recorded
class CorrelationHead(LocalHead):
    """
    Deformable matching by correlation: both images' local features, averaged to half the size, through one 1x1x1
    projection, centred and normalised to unit length; the softmax of the dot products with the moving features within
    ``radius``, at a learned temperature; the expected offset, smoothed by a 3x3x3 box and interpolated to full size.

    There is no free convolution that could find the displacement from features that disagree: they must be consistent
    between subjects and distinct between places.

    Args:
        in_channels: channels of ONE image's local features.
        hidden_channels: channels of the projection.
        spatial_dims: 2 or 3.
        velocity_steps: see :class:`~scripts.networks.DeformableHead`.
        radius: largest offset along each axis, in voxels of half the size.
        temperature: of the softmax, at the start.

    Raises:
        InputError: with a radius below 1 or a temperature that is not positive.
    """

    def __init__(
        self,
        in_channels: int = 32,
        hidden_channels: int = 16,
        spatial_dims: int = 3,
        velocity_steps: int = 0,
        radius: int = 3,
        temperature: float = 0.1,
    ) -> None:
        super().__init__()
        if radius < 1 or int(radius) != radius:
            raise InputError(f"the radius of the correlation must be a whole number of 1 or more, not {radius}")
        if temperature <= 0:
            raise InputError(f"the temperature of the correlation must be positive, not {temperature}")
        self.projection = Conv[Conv.CONV, spatial_dims](in_channels, hidden_channels, kernel_size=1, bias=False)
        initialise(self.projection)
        self.log_temperature = nn.Parameter(torch.tensor(float(temperature)).log())
        average = Pool[Pool.AVG, spatial_dims]
        self.halve = average(2)
        self.box = average(3, stride=1)
        self.radius, self.velocity_steps = int(radius), velocity_steps

    def describe(self, features: torch.Tensor) -> torch.Tensor:
        """Local features ``(B, C, D, H, W)`` to unit vectors of half the size, in float32."""
        odd = [amount for edge in reversed(features.shape[2:]) for amount in (0, edge % 2)]
        if any(odd):
            features = functional.pad(features, odd, mode="replicate")
        projected = self.projection(self.halve(features)).float()  # an eighth of the work, and the same
        axes = list(range(2, projected.dim()))
        return functional.normalize(projected - projected.mean(dim=axes, keepdim=True), dim=1)

    def field(self, moving: torch.Tensor, fixed: torch.Tensor) -> torch.Tensor:
        """See :meth:`LocalHead.field`; within twice the radius."""
        size = fixed.shape[2:]
        queries, keys = self.describe(fixed), self.describe(moving)
        with torch.autocast(fixed.device.type, enabled=False):
            half = 2 * expected_offset(queries / self.log_temperature.exp(), keys, self.radius)
            half = self.box(functional.pad(half, [1] * 2 * len(size), mode="replicate"))
        mode = "trilinear" if len(size) == 3 else "bilinear"
        field = _crop(functional.interpolate(half, scale_factor=2, mode=mode, align_corners=False), size)
        return exponential(field, self.velocity_steps) if self.velocity_steps else field
