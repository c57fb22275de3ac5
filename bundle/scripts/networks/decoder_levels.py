# SPDX-License-Identifier: Apache-2.0
"""The features of several decoder levels side by side at full size: what few labels are read from."""

from __future__ import annotations

import torch
from torch.nn import functional


def side_by_side(levels: list[torch.Tensor], padding: list[int]) -> torch.Tensor:
    """
    Levels of the decoder enlarged to full size (corners aligned, as the backbone enlarges) and stacked as channels.

    It takes tensors, not the backbone: TorchScript compiles a class anew for each instance, and a function that names
    the class fits the first one alone.

    Args:
        levels: ``(B, features[k], d, h, w)`` each, full size first, of the padded image.
        padding: what to take away again, see :meth:`~scripts.networks.UNetBackbone.padding`.

    Returns:
        ``(B, sum of their channels, D, H, W)``, in their order.
    """
    size = levels[0].shape[2:]
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(size)]
    enlarged = [levels[0]] + [
        functional.interpolate(level, size=size, mode=mode, align_corners=True) for level in levels[1:]
    ]
    return functional.pad(torch.cat(enlarged, 1), [-zeros for zeros in padding])
