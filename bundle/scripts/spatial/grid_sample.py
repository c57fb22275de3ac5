# SPDX-License-Identifier: Apache-2.0
"""PyTorch's ``grid_sample`` on all cores: on a CPU it divides the images of a batch among them, never an image."""

from __future__ import annotations

import torch
from torch.nn import functional

CHANNELS_A_PART = 4
"""Fewest channels of a part: each computes the voxels around all positions anew."""


def grid_sample(image: torch.Tensor, coordinates: torch.Tensor, mode: str, padding_mode: str) -> torch.Tensor:
    """
    ``torch.nn.functional.grid_sample(..., align_corners=True)``: the same values, a single image in less time.

    Its parts are passed as a batch: groups of channels where the image needs a gradient (parts of the positions would
    each have one as large as the image), else groups of the positions' first axis.

    Args:
        image: ``(B, C, D, H, W)`` or ``(B, C, H, W)``.
        coordinates: ``(B, *size, N)``, within -1..1, last axis first.
        mode: ``"bilinear"`` or ``"nearest"``.
        padding_mode: ``"zeros"`` or ``"border"``.

    Returns:
        ``(B, C, *size)``.
    """
    parts, size = _parts(image, coordinates), coordinates.shape[1:-1]
    if parts > 1 and image.requires_grad:
        image = image.reshape(parts, -1, *image.shape[2:])
        coordinates = coordinates.expand(parts, *coordinates.shape[1:])
    elif parts > 1:
        image = image.expand(parts, *image.shape[1:])
        coordinates = coordinates.reshape(parts, -1, *coordinates.shape[2:])
    found = functional.grid_sample(image, coordinates, mode, padding_mode, align_corners=True)
    if parts == 1:
        return found
    return (found if image.requires_grad else found.transpose(0, 1)).reshape(1, -1, *size)


def _parts(image: torch.Tensor, coordinates: torch.Tensor) -> int:
    """In how many equal parts a single image on a CPU is sampled, one a thread at most."""
    if image.device.type != "cpu" or len(image) != 1 or torch.jit.is_tracing() or torch.compiler.is_compiling():
        return 1
    divided = image.shape[1] if image.requires_grad else coordinates.shape[1]
    most = min(torch.get_num_threads(), image.shape[1] // CHANNELS_A_PART if image.requires_grad else divided)
    return next(n for n in range(max(most, 1), 0, -1) if divided % n == 0)
