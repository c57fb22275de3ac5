# SPDX-License-Identifier: Apache-2.0
"""
Norms of convolutions before a normalisation.

Such a norm changes no output, but a step of one rate turns large weights less than small ones (van Laarhoven, "L2
regularization versus batch and weight normalization", 2017). In a long pre-training norms grow (of the shipped weights
1.6 to 4 times), so that the rates that suit a new network hardly move them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from monai.networks.blocks import Convolution
from torch import nn


def _convolutions(network: nn.Module) -> Iterator[tuple[str, Any]]:
    """
    MONAI's convolutions that are followed by a GroupNorm, by name. Not by others: running statistics would keep the
    scale that they were taken with, and an InstanceNorm may see variances as small as the number that it adds to them.
    """
    for name, block in network.named_modules():
        if isinstance(block, Convolution) and isinstance(next(iter(getattr(block, "adn", ())), None), nn.GroupNorm):
            yield name, block.conv


def weight_norms(network: nn.Module) -> dict[str, torch.Tensor]:
    """The norms of the weights of these convolutions, by name."""
    return {name: convolution.weight.detach().norm() for name, convolution in _convolutions(network)}


@torch.no_grad()
def scale_weights(network: nn.Module, norms: Mapping[str, torch.Tensor]) -> None:
    """
    Scale these convolutions, biases with them, to given norms; what the network computes stays the same, but for the
    small number that a normalisation adds to the variance.

    Args:
        network: changed in place.
        norms: see :func:`weight_norms`; a convolution that is not in there stays as it is.
    """
    for name, convolution in _convolutions(network):
        if name in norms:
            factor = norms[name].to(convolution.weight) / convolution.weight.norm().clamp(min=1e-12)
            convolution.weight.mul_(factor)
            if convolution.bias is not None:
                convolution.bias.mul_(factor)
