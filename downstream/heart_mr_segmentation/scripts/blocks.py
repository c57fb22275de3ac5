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

"""What the backbone and the heads share: activation, normalisation, initialisation, convolutions of one volume."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from monai.networks.nets.basic_unet import UpCat
from torch import nn
from torch.nn import functional

LEAKY_RELU = ("leakyrelu", {"negative_slope": 0.2, "inplace": True})


def group_norm(channels: int, channels_per_group: int = 8) -> tuple[str, dict]:
    """
    MONAI's description of a GroupNorm with that many channels a group, or the next larger number that divides them.
    """
    wanted = max(1, channels // channels_per_group)
    return "group", {"num_groups": next(n for n in range(wanted, 0, -1) if channels % n == 0)}


SLOW_BELOW = 20480
"""Channels x depth x height up to which PyTorch leaves a batch of one to its slow native convolution."""

CHANNELS_A_VOXEL = 4
"""Input channels for each voxel of the batch from which on a matrix product is faster than oneDNN's convolution."""

LANES = 16 if "AVX512" in torch.backends.cpu.get_cpu_capability() else 1
"""Output channels that one instruction of the processor computes together; 1 where that has not been measured."""


class SmallVolumeConv3d(nn.Conv3d):
    """
    A 3x3x3 convolution of stride 1 that is fast on a CPU for small volumes too: the same sums, in another order.

    PyTorch computes a batch of one small volume by a kernel several times slower than oneDNN's, forwards and backwards
    (``make benchmark`` measures it). Such a volume is passed as a batch of its two overlapping halves. At the deepest
    level of a wide network, where voxels are few and oneDNN holds the weights' gradient several times at once, the
    convolution is the matrix product of the voxels' neighbourhoods and the weights.

    Up to 8 output channels leave half of each AVX-512 instruction unused. Without gradients neighbouring voxels are
    computed as further channels of a convolution with as large a stride, whose result, channels last, lies in memory as
    that of the plain convolution does. (A step with gradients is not faster that way.)
    """

    def _conv_forward(self, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        if torch.jit.is_scripting():
            return functional.conv3d(input, weight, bias, self.stride, self.padding, self.dilation, self.groups)
        elif not self._is_plain_cpu(input):
            return super()._conv_forward(input, weight, bias)
        elif input.shape[1] >= CHANNELS_A_VOXEL * input[:, 0].numel():
            return self._by_product(input, weight, bias)
        elif len(input) == 1 and input.shape[2] > 1 and input[0, ..., 0].numel() <= SLOW_BELOW:
            return self._by_halves(input, weight, bias)
        else:
            return self._by_neighbours(input, weight, bias, padding=1)

    @torch.jit.unused
    def _is_plain_cpu(self, image: torch.Tensor) -> bool:
        exported = torch.jit.is_tracing() or torch.compiler.is_compiling()
        return image.device.type == "cpu" and image.dim() == 5 and not exported

    @torch.jit.unused
    def _by_product(self, image: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        near = functional.pad(image, (1,) * 6).permute(0, 2, 3, 4, 1)
        near = near.unfold(1, 3, 1).unfold(2, 3, 1).unfold(3, 3, 1)  # B, D, H, W, C, 3, 3, 3
        rows = near.permute(0, 1, 2, 3, 5, 6, 7, 4).flatten(4)  # in the order of weights with their channels last
        result = functional.linear(rows, weight.permute(0, 2, 3, 4, 1).flatten(1), bias)
        return result.permute(0, 4, 1, 2, 3)

    @torch.jit.unused
    def _by_halves(self, image: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        depth = image.shape[2]
        half = -(-depth // 2)
        padded = functional.pad(image, (0, 0, 0, 0, 1, 1 + depth % 2))
        halves = torch.cat([padded[:, :, : half + 2], padded[:, :, half:]])
        first, second = self._by_neighbours(halves, weight, bias, padding=0).chunk(2)
        return torch.cat([first, second[:, :, : depth - half]], dim=2)

    @torch.jit.unused
    def _by_neighbours(
        self, image: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, padding: int
    ) -> torch.Tensor:
        last = image.is_contiguous(memory_format=torch.channels_last_3d)
        last = last and weight.stride(1) == 1  # an image of one channel has both layouts
        most = LANES // len(weight) if last and not torch.is_grad_enabled() else 1
        together = next((n for n in range(most, 1, -1) if image.shape[4] % n == 0), 1)
        if together == 1:
            return functional.conv3d(image, weight, bias, padding=(padding, 1, 1))
        shifted = torch.cat([functional.pad(weight, (n, together - 1 - n)) for n in range(together)])
        biases = None if bias is None else bias.repeat(together)
        found = functional.conv3d(image, shifted, biases, stride=(1, 1, together), padding=(padding, 1, 1))
        found = found.movedim(1, -1).contiguous()  # B, D, H, W / together, together x out channels
        return found.unflatten(-1, (together, -1)).flatten(3, 4).movedim(-1, 1)


def part_convolutions(layer: Any, *channels: int) -> list[Callable[[torch.Tensor], torch.Tensor]]:
    """
    The convolutions of the parts of its input that add up to a layer's of all of them.

    On a CPU that costs less than concatenating the parts, which copies the largest tensors of a network: forwards,
    backwards, and when activations are computed again.

    Args:
        layer: a convolution, 2D or 3D.
        channels: of each part of its input.

    Returns:
        for each part a function from ``(B, channels, D, H, W)`` to ``(B, out channels, D, H, W)``.
    """
    weights = layer.weight.split(channels, dim=1)
    biases = [layer.bias] + [None] * (len(channels) - 1)
    return [partial(layer._conv_forward, weight=one, bias=bias) for one, bias in zip(weights, biases, strict=True)]


def after_first(convs: Any, features: torch.Tensor) -> torch.Tensor:
    """What follows the first convolution of a ``TwoConv``: ``(B, out channels, D, H, W)`` both."""
    return convs.conv_1(convs.conv_0.adn(features))


class UpJoin(UpCat):
    """MONAI's ``UpCat``: the same sums and weights, but up-sampled and skipped features are not concatenated."""

    def forward(self, x: torch.Tensor, x_e: torch.Tensor | None) -> torch.Tensor:
        """
        Args:
            x: features of the level below, ``(B, C, d, h, w)``.
            x_e: those of the encoder at this level, ``(B, K, D, H, W)``, or None.

        Returns:
            ``(B, out channels, D, H, W)``.
        """
        if torch.jit.is_scripting():
            above = self.upsample(x)
            return self.convs(above if x_e is None else torch.cat([x_e, above], dim=1))
        elif x_e is None:
            return self.convs(self.upsample(x))
        else:
            return self.second(self.first(x, x_e))

    @torch.jit.unused
    def first(self, below: torch.Tensor, skipped: torch.Tensor) -> torch.Tensor:
        """The first convolution, of :meth:`forward`'s ``x`` and ``x_e``: ``(B, out channels, D, H, W)``."""
        convs: Any = self.convs
        kept = skipped.shape[1]
        of_skipped, of_above = part_convolutions(convs.conv_0.conv, kept, convs.conv_0.conv.in_channels - kept)
        return of_skipped(skipped).add_(self.above(below, of_above))

    @torch.jit.unused
    def above(self, below: torch.Tensor, convolution: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """The up-sampled features' part of it: ``(B, C, d, h, w)`` to ``(B, out channels, D, H, W)``."""
        return convolution(self.upsample(below))

    @torch.jit.unused
    def second(self, features: torch.Tensor) -> torch.Tensor:
        """What follows the first convolution: ``(B, out channels, D, H, W)`` both."""
        return after_first(self.convs, features)


def _is_common(layer: nn.Conv3d) -> bool:
    """3x3x3, stride 1, padded by zeros to the same size, no groups."""
    ones = layer.padding == layer.stride == layer.dilation == (1, 1, 1)
    return ones and layer.kernel_size == (3, 3, 3) and layer.groups == 1 and layer.padding_mode == "zeros"


def initialise(module: nn.Module, negative_slope: float = 0.2) -> None:
    """
    Kaiming-normal weights and zero biases for every convolution, in place.

    MONAI's blocks make plain convolutions; those of 3x3x3 become :class:`SmallVolumeConv3d`, with the same weights.
    """
    for layer in module.modules():
        if type(layer) is nn.Conv3d and _is_common(layer):
            layer.__class__ = SmallVolumeConv3d
        if isinstance(layer, (nn.Conv2d, nn.Conv3d)):
            nn.init.kaiming_normal_(layer.weight, a=negative_slope, nonlinearity="leaky_relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
