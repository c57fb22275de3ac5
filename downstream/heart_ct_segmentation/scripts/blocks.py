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


class SingleVolumeConv3d(nn.Conv3d):
    """
    A 3x3x3 convolution of stride 1 that is as fast on a CPU for a single volume as for a batch.

    PyTorch computes a batch of one small volume by a kernel several times slower than oneDNN's, forwards and backwards
    (``make benchmark`` measures it). Such a volume is passed as a batch of its two overlapping halves: the same sums.
    """

    def _conv_forward(self, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        if torch.jit.is_scripting():
            return functional.conv3d(input, weight, bias, self.stride, self.padding, self.dilation, self.groups)
        elif not self._is_slow(input):
            return super()._conv_forward(input, weight, bias)
        else:
            return self._by_halves(input, weight, bias)

    @torch.jit.unused
    def _is_slow(self, image: torch.Tensor) -> bool:
        if image.device.type != "cpu" or torch.jit.is_tracing() or torch.compiler.is_compiling():
            return False
        return image.dim() == 5 and len(image) == 1 and image.shape[2] > 1 and image[0, ..., 0].numel() <= SLOW_BELOW

    @torch.jit.unused
    def _by_halves(self, image: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        depth = image.shape[2]
        half = -(-depth // 2)
        padded = functional.pad(image, (0, 0, 0, 0, 1, 1 + depth % 2))
        halves = torch.cat([padded[:, :, : half + 2], padded[:, :, half:]])
        first, second = functional.conv3d(halves, weight, bias, padding=(0, 1, 1)).chunk(2)
        return torch.cat([first, second[:, :, : depth - half]], dim=2)


def dense_gradient(gradient: torch.Tensor) -> torch.Tensor:
    """The gradient itself, packed in the memory layout that it has."""
    channels_last = torch.channels_last_3d if gradient.dim() == 5 else torch.channels_last
    layout = channels_last if gradient.stride(1) == 1 else torch.contiguous_format
    return gradient.contiguous(memory_format=layout)


def _pack_gradient(features: torch.Tensor) -> None:
    if features.requires_grad and not torch.compiler.is_compiling():
        features.register_hook(dense_gradient)


class UpJoin(UpCat):
    """
    MONAI's ``UpCat`` whose backward pass is faster on a CPU: the gradient that a concatenation hands to the up-sampling
    is a slice of a larger one, which PyTorch would take through another memory layout (five times slower).
    """

    def join(self, below: torch.Tensor, skipped: torch.Tensor) -> torch.Tensor:
        """
        Args:
            below: features of the level below, ``(B, C, d, h, w)``.
            skipped: those of the encoder at this level, ``(B, K, D, H, W)``.

        Returns:
            ``(B, K + C, D, H, W)``.
        """
        above = self.upsample(below)
        if not torch.jit.is_scripting():
            _pack_gradient(above)
        return torch.cat([skipped, above], dim=1)

    def forward(self, x: torch.Tensor, x_e: torch.Tensor | None) -> torch.Tensor:
        """``(B, out channels, D, H, W)``: the convolutions of what :meth:`join` gives, or of ``x`` alone."""
        return self.convs(self.upsample(x) if x_e is None else self.join(x, x_e))


def _is_common(layer: nn.Conv3d) -> bool:
    """3x3x3, stride 1, padded by zeros to the same size, no groups."""
    ones = layer.padding == layer.stride == layer.dilation == (1, 1, 1)
    return ones and layer.kernel_size == (3, 3, 3) and layer.groups == 1 and layer.padding_mode == "zeros"


def initialise(module: nn.Module, negative_slope: float = 0.2) -> None:
    """
    Kaiming-normal weights and zero biases for every convolution, in place.

    MONAI's blocks make plain convolutions; those of 3x3x3 become :class:`SingleVolumeConv3d`, with the same weights.
    """
    for layer in module.modules():
        if type(layer) is nn.Conv3d and _is_common(layer):
            layer.__class__ = SingleVolumeConv3d
        if isinstance(layer, (nn.Conv2d, nn.Conv3d)):
            nn.init.kaiming_normal_(layer.weight, a=negative_slope, nonlinearity="leaky_relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
