# SPDX-License-Identifier: Apache-2.0
"""The whole GVSL network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ..errors import InputError
from ..spatial.warp import warp
from .matching_head import match


class GVSL(nn.Module):
    """
    Geometric Visual Similarity Learning: one backbone, the two heads of Z-matching, the restoration head.

    He et al., "Geometric Visual Similarity Learning in 3D Medical Image Self-supervised Pre-training", CVPR 2023,
    doi:10.1109/CVPR52729.2023.00920.

    Args:
        backbone: image to (f^g, f^l); its method ``levels``, if it has one, gives these and the features of its other
            levels.
        affine_head: see :class:`~scripts.networks.AffineHead`; None leaves the affine map at the identity.
        deformable_head: see :class:`~scripts.networks.DeformableHead`.
        restoration_head: f^l to the restored image.
        symmetric: while training, match both ways from the same features and restore both images.
        corrupted: which image is restored, "moving" (the paper) or "fixed" (both where symmetric).
    """

    def __init__(
        self,
        backbone: nn.Module,
        affine_head: nn.Module | None,
        deformable_head: nn.Module,
        restoration_head: nn.Module,
        symmetric: bool = False,
        corrupted: str = "moving",
    ) -> None:
        super().__init__()
        if corrupted not in ("moving", "fixed"):
            raise InputError(f"corrupted is 'moving' or 'fixed', not '{corrupted}'")
        self.backbone = backbone
        self.affine_head = affine_head
        self.deformable_head = deformable_head
        self.restoration_head = restoration_head
        self.symmetric, self.corrupted = symmetric, corrupted

    def forward(self, fixed: torch.Tensor, moving: torch.Tensor | None = None) -> torch.Tensor | dict:
        """
        Restore one image, or match two.

        Args:
            fixed: ``(B, C, D, H, W)``.
            moving: of the same shape; None restores ``fixed``.

        Returns:
            without ``moving``: the restored image ``(B, C, D, H, W)``. With it a dictionary:

            - ``affine``: ``(B, N, N + 1)``, voxels of the fixed grid to voxels of the moving image;
            - ``local_displacement``: the deformable head's field, in the affine-aligned frame, ``(B, N, D, H, W)``
              voxels;
            - ``displacement``: both fused, ``(B, N, D, H, W)`` in voxels;
            - in evaluation mode ``warped``: the moving image in the fixed image's frame, ``(B, C, D, H, W)``;
            - while training, when the losses warp the clean image, ``restored`` instead: the ``corrupted`` image
              restored, ``(B, C, D, H, W)``, and ``features``: those of the moving image, f^g and f^l first, a tuple of
              ``(B, C, d, h, w)``, channels and size those of the level;
            - while training a symmetric network, ``backward``: the same with fixed and moving exchanged.
        """
        if moving is None:
            return self.restoration_head(self.backbone(fixed)[1])
        if fixed.shape != moving.shape:
            raise ValueError(f"fixed and moving differ in shape: {tuple(fixed.shape)} and {tuple(moving.shape)}")
        both = torch.cat([fixed, moving])
        if not self.training:
            fixed_features, moving_features = _halves(self.backbone(both))
            result = match(self.affine_head, self.deformable_head, fixed_features, moving_features)
            return {"warped": warp(moving, result["displacement"]), **result}
        features = tuple(getattr(self.backbone, "levels", self.backbone)(both))
        if self.symmetric:  # one batch: the second half matches the other way
            fixed_features, moving_features = features, tuple(level.roll(len(fixed), dims=0) for level in features)
        else:
            fixed_features, moving_features = _halves(features)
        result = match(self.affine_head, self.deformable_head, fixed_features[:2], moving_features[:2])
        restorable = moving_features if self.corrupted == "moving" else fixed_features
        result["restored"] = self.restoration_head(restorable[1])
        if not self.symmetric:
            return {**result, "features": moving_features}
        halves = {name: value.chunk(2) for name, value in result.items()} | {"features": _halves(moving_features)}
        return {
            **{name: first for name, (first, _) in halves.items()},
            "backward": {name: second for name, (_, second) in halves.items()},
        }

    def __prepare_scriptable__(self) -> nn.Module:
        """What ``torch.jit.script`` takes in place of this network: TorchScript knows one type of result, the image."""
        return Restoration(self.backbone, self.restoration_head).train(self.training)


def _halves(features: Sequence[torch.Tensor]) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    """The features of the first and of the second half of a batch."""
    first, second = zip(*(level.chunk(2) for level in features), strict=True)
    return first, second


class Restoration(nn.Module):
    """
    The part of :class:`GVSL` that restores a single image, under the same names.

    Args:
        backbone: image to (f^g, f^l).
        restoration_head: f^l to the restored image.
    """

    def __init__(self, backbone: nn.Module, restoration_head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.restoration_head = backbone, restoration_head

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """
        Args:
            image: ``(B, C, D, H, W)``.

        Returns:
            the restored image, of the same shape.
        """
        return self.restoration_head(self.backbone(image)[1])
