# SPDX-License-Identifier: Apache-2.0
"""The Z-matching head: global (affine) and then local (deformable) matching of two images' features (section 3.2)."""

from __future__ import annotations

import torch
from torch import nn

from ..spatial.warp import affine_displacement, fuse, warp
from .known_map import KnownMap
from .levels import Levels
from .recorded import recorded


@recorded
class ZMatchingHead(nn.Module):
    """
    Z-matching: an affine map from the global features, then a displacement field from the local features in the frame
    that the affine map has aligned; both fused as ``A(p + u(p))``.

    Args:
        global_matching: (fixed, moving, known maps or None) to a dictionary with ``affine``, ``(B, N, N + 1)``, voxels
            of the fixed grid to voxels of the moving image, such as :class:`~scripts.networks.GlobalMatchingHead`; None
            for the identity.
        local_matching: (fixed, moving, affine or None, known maps or None) to a dictionary with
            ``local_displacement``, ``(B, N, D, H, W)`` voxels, such as :class:`~scripts.networks.LocalMatchingHead`.
    """

    def __init__(self, global_matching: nn.Module | None, local_matching: nn.Module) -> None:
        super().__init__()
        self.global_matching, self.local_matching = global_matching, local_matching

    def forward(self, fixed: Levels, moving: Levels, known: KnownMap | None = None) -> dict[str, torch.Tensor]:
        """
        Args:
            fixed: the fixed image and its features.
            moving: the moving image and its features.
            known: the known maps of a training step.

        Returns:
            ``affine`` ``(B, N, N + 1)``, ``local_displacement`` and ``displacement`` ``(B, N, D, H, W)``, in voxels;
            and what else the two parts say (their confidence, say), with the batch first.
        """
        found = {} if self.global_matching is None else self.global_matching(fixed, moving, known)
        found = {**found, **self.local_matching(fixed, moving, found.get("affine"), known)}
        local = found["local_displacement"]
        n = local.shape[1]
        if "affine" not in found:
            found["affine"] = torch.eye(n, n + 1, device=local.device).repeat(len(local), 1, 1)
        return {**found, "displacement": fuse(found["affine"], local)}


class LocalHead(nn.Module):
    """
    Local matching by f^l alone: a head gives its ``field`` from the moving features that the affine map has aligned.
    """

    def forward(
        self, fixed: Levels, moving: Levels, affine: torch.Tensor | None, known: KnownMap | None = None
    ) -> dict[str, torch.Tensor]:
        """
        Args:
            fixed: the fixed image and its features.
            moving: the moving image and its features.
            affine: ``(B, N, N + 1)`` in voxels; None for the identity.
            known: the known maps of a training step; not used.

        Returns:
            ``local_displacement``, ``(B, N, D, H, W)`` in voxels.
        """
        aligned = moving.local
        if affine is not None:
            aligned = warp(aligned, affine_displacement(affine, fixed.local.shape[2:]))
        return {"local_displacement": self.field(aligned, fixed.local)}

    def field(self, moving: torch.Tensor, fixed: torch.Tensor) -> torch.Tensor:
        """
        Args:
            moving: local features of the moving image, aligned by the affine map, ``(B, C, D, H, W)``.
            fixed: local features of the fixed image, ``(B, C, D, H, W)``.

        Returns:
            ``(B, N, D, H, W)`` in voxels.
        """
        raise NotImplementedError
