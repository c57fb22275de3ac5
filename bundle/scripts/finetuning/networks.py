# SPDX-License-Identifier: Apache-2.0
"""From pre-training to a task: a backbone with one layer on it, and weights that are loaded completely or refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, ClassVar

import torch
from monai.networks.layers import Conv
from torch import nn

from ..errors import InputError
from ..files import load_file
from ..networks.adapters import NetworkBackbone
from ..networks.backbone import UNetBackbone
from ..networks.decoder_levels import side_by_side
from ..networks.find_weights import find_weights
from ..networks.weight_norms import scale_weights, weight_norms
from ..networks.weights import load_weights, one_channel_repeated

Backbone = UNetBackbone | NetworkBackbone
"""Backbones whose decoder's levels can be read."""


class TaskNetwork(nn.Module):
    """
    A backbone and one layer on its features.

    Args:
        backbone: image to (f^g, f^l).
        head: the layer.
        linear: train the layer alone, on frozen features.
    """

    modes: ClassVar[tuple[str, ...]] = ("finetune", "linear", "scratch")
    """Ways to begin, see :func:`load_pretrained`."""

    def __init__(self, backbone: Backbone, head: nn.Module, linear: bool) -> None:
        super().__init__()
        self.backbone, self.head, self.linear = backbone, head, linear
        backbone.requires_grad_(not linear)


class SegmentationNetwork(TaskNetwork):
    """
    A backbone and one 1x1x1 convolution on its local features f^l (paper, section 4.1), or on several decoder levels
    enlarged and side by side.

    Args:
        backbone: image to (f^g, f^l).
        num_classes: structures and background.
        linear: train the convolution alone, on frozen features.
        levels: of the decoder that the convolution reads, from full size down; 1 for f^l alone, as the paper.
    """

    modes: ClassVar = ("fitted", "finetune", "linear", "scratch")
    __constants__ = ["levels"]  # for TorchScript, which then compiles one way of the two

    def __init__(self, backbone: Backbone, num_classes: int, linear: bool = False, levels: int = 1) -> None:
        if num_classes < 2:
            raise InputError(f"a segmentation needs background and at least one structure, not {num_classes} classes")
        if levels not in range(1, len(backbone.features)):
            raise InputError(f"decoder_levels is 1 to {len(backbone.features) - 1} with this backbone, not {levels}")
        head = Conv[Conv.CONV, backbone.spatial_dims](sum(backbone.features[:levels]), num_classes, kernel_size=1)
        super().__init__(backbone, head, linear)
        self.levels = levels

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """
        Args:
            image: ``(B, C, D, H, W)``.

        Returns:
            logits ``(B, num_classes, D, H, W)``.
        """
        return self.head(self.features(image))

    def features(self, image: torch.Tensor) -> torch.Tensor:
        """
        Args:
            image: ``(B, C, D, H, W)``.

        Returns:
            what the convolution reads, ``(B, channels, D, H, W)``, the channels of f^l first.
        """
        if self.levels == 1:
            return self.backbone(image)[1]
        decoded = self.backbone.decoder_levels(image)[: self.levels]
        return side_by_side(decoded, self.backbone.padding(list(image.shape[2:])))


def load_pretrained(network: TaskNetwork, mode: str, path: str | None, fresh_levels: int = 0) -> None:
    """
    Begin as the mode says, and say with what. Pre-trained weights that are going to be trained get the norms of new
    ones (:mod:`scripts.networks.weight_norms`): ten labelled hippocampi, choosing scans, Dice 0.863 for 0.854.

    Args:
        network: whose backbone is filled.
        mode: "fitted", "finetune" or "linear" from pre-trained weights (random ones where there are none), "scratch".
        path: ``model.pt`` or ``checkpoint.pt`` of a pre-training, or None.
        fresh_levels: levels of the decoder, from full size down, that stay random unless the mode is "linear":
            pre-training has shaped them for its own heads, and they are slow to learn another task (Zhang et al.,
            "Revisiting few-sample BERT fine-tuning", ICLR 2021, did so for a language model). A child's own weights are
            taken whole.

    Raises:
        InputError: for a mode that does not exist or contradicts the path; when the file does not cover the backbone,
            or the decoder has fewer levels.
    """
    if mode not in network.modes:
        raise InputError(f"mode is one of {', '.join(network.modes)}, not '{mode}'")
    if mode == "scratch" and path:
        other = f"or pass --mode {network.modes[0]}"
        raise InputError(f"mode 'scratch' starts from random weights: leave --pretrained out, {other}")
    levels = len(network.backbone.features) - 1
    if fresh_levels not in range(levels + 1):
        raise InputError(f"fresh_levels is 0 to {levels}, the levels of the decoder, not {fresh_levels}")
    if not path:
        print("backbone: random weights" + ("" if mode == "scratch" else " (no --pretrained was given)"), flush=True)
        return
    content = load_file(path)
    weights = one_channel_repeated(find_weights(content, network.backbone.state_dict(), path), network.backbone)
    tuned = any(True for _ in _last_layers(content))  # a child's own network
    random = {} if mode == "linear" or tuned else last_levels(network.backbone, fresh_levels)
    norms = {} if mode == "linear" or tuned else weight_norms(network.backbone)
    load_weights(network.backbone, weights, path)
    scale_weights(network.backbone, norms)
    network.backbone.load_state_dict(random, strict=False)
    numbers = sum(value.numel() for name, value in weights.items() if name not in random)
    taken = f"{len(weights) - len(random)} of {len(weights)} tensors ({numbers:,} numbers) from {path}"
    print(f"backbone: {taken}" + (f", random levels of the decoder: {fresh_levels}" if random else ""), flush=True)


def _last_layers(content: Any) -> Iterator[torch.Tensor]:
    """Weights of the one layer on a backbone, which a child's own network has, however it is wrapped in a file."""
    for name, value in content.items() if isinstance(content, Mapping) else ():
        if isinstance(value, Mapping):
            yield from _last_layers(value)
        elif isinstance(name, str) and f".{name}".endswith(".head.weight"):
            yield value


def levels_of_model(path: str, features: Sequence[int]) -> int:
    """
    How many levels of the decoder the last layer of a segmentation reads, by the channels of its weights.

    Args:
        path: ``model.pt`` of a child.
        features: channels of its backbone, full size first.

    Returns:
        their number; 1 where the file is missing or of another network, which is refused when the weights are loaded.

    Raises:
        InputError: for a file that cannot be read.
    """
    if not Path(path).is_file():
        return 1
    channels = next((weight.shape[1] for weight in _last_layers(load_file(path))), 0)
    widths = list(accumulate(features[:-1]))
    return widths.index(channels) + 1 if channels in widths else 1


def last_levels(backbone: Backbone, count: int) -> dict[str, torch.Tensor]:
    """
    A copy of the weights of the last ``count`` levels of the decoder, those next to full size, under their names in the
    backbone's state dictionary.
    """
    weights = backbone.state_dict()
    return {name: weights[name].clone() for name in backbone.names_of_last_levels(count)}


class ClassificationNetwork(TaskNetwork):
    """
    The backbone's encoder, global average pooling of its f^g, and one linear layer (paper, section 4.1).

    The decoder is not trained, and that of the bundle's own U-Net not computed; its weights stay as they are, so that a
    backbone is always whole.

    Args:
        backbone: image to (f^g, f^l).
        num_classes: classes to tell apart.
        linear: train the linear layer alone, on frozen features.

    Raises:
        InputError: with fewer than two classes.
    """

    def __init__(self, backbone: Backbone, num_classes: int, linear: bool = False) -> None:
        if num_classes < 2:
            raise InputError(f"a classification needs two classes or more, not {num_classes}")
        super().__init__(backbone, nn.Linear(backbone.features[-1], num_classes), linear)
        for name in [] if linear else backbone.names_of_last_levels(len(backbone.features) - 1):
            backbone.get_parameter(name).requires_grad_(False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """
        Args:
            image: ``(B, C, D, H, W)``.

        Returns:
            logits ``(B, num_classes)``.
        """
        return self.head(self.backbone.bottleneck(image).flatten(2).mean(2))
