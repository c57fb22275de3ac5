# SPDX-License-Identifier: Apache-2.0
"""Activation checkpointing: what is cheap to compute is computed again in the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from .backbone import UNetBackbone
from .correlation_head import CorrelationHead
from .deformable_head import CascadeHead
from .local_matching import LocalMatchingHead

recomputed = partial(checkpoint, use_reentrant=False, preserve_rng_state=False)  # nothing within is random


def checkpoint_activations(network: Any, enabled: bool = True) -> None:
    """
    Keep what convolutions give and levels pass on; normalisation, activation, pooling and up-sampling
    are computed again when a gradient is needed. Losses and gradients stay the same, bit for bit. It costs little time
    (``make benchmark ARGS=--options``): all of it is cheap beside a convolution.

    Args:
        network: :class:`~scripts.networks.GVSL` around a :class:`~scripts.networks.UNetBackbone`; around another
            backbone it stays as it is.
        enabled: False leaves it as it is.
    """
    if not enabled or not isinstance(network.backbone, UNetBackbone):
        return
    backbone: Any = network.backbone
    head = network.matching_head.local_matching
    backbone.stem.forward = partial(_two_convolutions, backbone.stem, nn.Identity())
    for down in backbone.downs:
        down.forward = partial(_two_convolutions, down.convs, down.max_pooling)
    for up in backbone.ups:
        up.above = partial(recomputed, up.above)
        up.second = partial(_second_convolution, up.convs)
    stages: Iterable[Any] = head.stages if isinstance(head, CascadeHead) else [head]
    for stage in stages:
        if not isinstance(stage, CorrelationHead | LocalMatchingHead):  # their memory is gone before the peak
            stage.second = partial(_second_convolution, stage.conv)


def _two_convolutions(convs: Any, before: Callable[[torch.Tensor], torch.Tensor], image: torch.Tensor) -> torch.Tensor:
    """
    ``convs(before(image))`` with MONAI's ``TwoConv``. Each part that is computed again ends with a convolution, which
    is not: PyTorch stops as soon as it has the last tensor that was kept, the convolution's input.
    """
    return _second_convolution(convs, recomputed(lambda given: convs.conv_0.conv(before(given)), image))


def _second_convolution(convs: Any, middle: torch.Tensor) -> torch.Tensor:
    """:func:`~scripts.networks.after_first`, whose first normalisation and activation are computed again."""
    first, second = convs.conv_0, convs.conv_1
    return second.adn(recomputed(lambda given: second.conv(first.adn(given)), middle))
