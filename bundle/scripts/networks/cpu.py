# SPDX-License-Identifier: Apache-2.0
"""Convolutions that are faster on CPUs: small volumes, few channels, parts of a concatenation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional

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
