# SPDX-License-Identifier: Apache-2.0
"""Weights that are loaded completely or refused, under present names, and made for images of several channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import InputError

FORMER_NAMES = {
    "affine_head.": "matching_head.global_matching.",
    "deformable_head.": "matching_head.local_matching.",
}
"""Of the parts of a network, as files of the first releases have them."""


def present_names(weights: Mapping[str, torch.Tensor], source: str | Path) -> dict[str, torch.Tensor]:
    """
    Weights under the names that a network has now; a line is printed where they had others.

    Args:
        weights: state dictionary.
        source: where it comes from, for the line.
    """
    renamed: dict[str, torch.Tensor] = {}
    for name, value in weights.items():
        former = next((former for former in FORMER_NAMES if name.startswith(former)), "")
        renamed[FORMER_NAMES.get(former, "") + name.removeprefix(former)] = value
    if renamed.keys() != weights.keys():
        print(f"{source}: weights of the names {' and '.join(FORMER_NAMES)} are read as matching_head.", flush=True)
    return renamed


def load_weights(module: nn.Module, weights: Mapping[str, torch.Tensor], source: str | Path) -> None:
    """
    Load weights that must cover a module exactly.

    Args:
        module: to be filled.
        weights: state dictionary.
        source: where it comes from, for the message.

    Raises:
        InputError: naming what is missing, unexpected, of another shape or no finite number; the module is then
            unchanged.
    """
    wanted = module.state_dict()
    weights = present_names(weights, source)
    problems = {
        "missing": [name for name in wanted if name not in weights],
        "unexpected": [name for name in weights if name not in wanted],
        "of another shape": [n for n in wanted if n in weights and weights[n].shape != wanted[n].shape],
    }
    if any(problems.values()):
        shown = "; ".join(f"{len(names)} {kind} ({names[0]})" for kind, names in problems.items() if names)
        raise InputError(
            f"{source} is of another architecture: of {len(wanted)} tensors {shown}; use the settings it was made with"
        )
    for name, value in wanted.items():
        check_values(weights[name], value.is_floating_point(), f"{source}: {name}")
    module.load_state_dict(weights)


def check_values(value: torch.Tensor, floating: bool, what: str) -> None:
    """
    Refuse a tensor that PyTorch would copy into a weight without a word, or could not copy.

    Args:
        value: of a file.
        floating: whether the weight is a floating-point number.
        what: the tensor is, for the message.

    Raises:
        InputError: for integers (scaled ones), complex, sparse or missing values; for NaN and infinite ones.
    """
    dense = value.layout == torch.strided and not value.is_quantized and not value.is_meta
    if not dense or value.is_complex() or value.is_floating_point() != floating:
        kind = str(value.dtype if value.layout == torch.strided else value.layout).removeprefix("torch.")
        raise InputError(
            f"{what} is of {kind} values: save dense floating-point tensors (value.dequantize, .to_dense, .float)"
        )
    if not value.isfinite().all():
        raise InputError(
            f"{what} holds NaN or infinite values, so the training that wrote it had failed: pass weights of an "
            "earlier epoch, such as its checkpoint_0007.pt"
        )


def repeat_stem(weights: Mapping[str, torch.Tensor], stems: Sequence[str], channels: int) -> dict[str, torch.Tensor]:
    """
    Weights for images of several channels from those for one: the kernels that see the image are repeated and divided,
    so that an image repeated in all channels gives the features of the image.

    Args:
        weights: state dictionary.
        stems: names of these kernels, ``(C, 1, 3, 3, 3)``, in it.
        channels: of the images.

    Raises:
        InputError: when they see several channels already, in another number.
    """
    made = dict(weights)
    for name in stems:
        own = weights[name].shape[1]
        if own == channels:
            continue
        if own != 1:
            raise InputError(f"weights for images of {own} channels cannot be used for {channels}; those of 1 can")
        made[name] = weights[name].repeat(1, channels, *[1] * (weights[name].dim() - 2)) / channels
    return made


def one_channel_repeated(weights: Mapping[str, torch.Tensor], backbone: Any) -> dict[str, torch.Tensor]:
    """
    Weights for one channel made for a backbone of several, see :func:`repeat_stem`; those of another network stay.

    Args:
        weights: a backbone's state dictionary.
        backbone: that they are for: :class:`~scripts.networks.UNetBackbone`.
    """
    stems = getattr(backbone, "stems", ())
    if not stems or any(name not in weights for name in stems):
        return dict(weights)
    return repeat_stem(weights, stems, backbone.in_channels)
