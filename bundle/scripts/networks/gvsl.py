# SPDX-License-Identifier: Apache-2.0
"""The whole GVSL network."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..errors import InputError
from .known_map import KnownMap
from .levels import Levels
from .recorded import recorded
from .spatial_transformer import SpatialTransformer


@recorded
class GVSL(nn.Module):
    """
    Geometric Visual Similarity Learning: one backbone, the Z-matching head, the spatial transformer, the
    restoration head.

    He et al., "Geometric Visual Similarity Learning in 3D Medical Image Self-supervised Pre-training", CVPR 2023,
    doi:10.1109/CVPR52729.2023.00920.

    Args:
        backbone: image to (f^g, f^l); its method ``levels``, if it has one, gives these and the features of its other
            levels.
        matching_head: (fixed, moving :class:`~scripts.networks.Levels`) to a dictionary with at least ``displacement``,
            as :class:`~scripts.networks.ZMatchingHead` gives it.
        restoration_head: f^l to the restored image.
        warp: (image, displacement) to the warped image, by default :class:`~scripts.networks.SpatialTransformer`.
        symmetric: while training, match pairs of two people both ways from the same features and restore both images
            (a known map leads one way).
        corrupted: which image is restored, "moving" (the paper) or "fixed" (both where symmetric).
        matched: False trains by restoration alone, at a fraction of the cost: the matching head stays as it is, and
            what it would find is left out while training.
    """

    def __init__(
        self,
        backbone: nn.Module,
        matching_head: nn.Module,
        restoration_head: nn.Module,
        warp: nn.Module | None = None,
        symmetric: bool = False,
        corrupted: str = "moving",
        matched: bool = True,
    ) -> None:
        super().__init__()
        if corrupted not in ("moving", "fixed"):
            raise InputError(f"corrupted is 'moving' or 'fixed', not '{corrupted}'")
        self.backbone = backbone
        self.matching_head = matching_head
        self.restoration_head = restoration_head
        self.warp = SpatialTransformer() if warp is None else warp
        self.symmetric, self.corrupted, self.matched = symmetric, corrupted, matched
        if not matched:
            matching_head.requires_grad_(False)

    def forward(self, fixed: torch.Tensor, moving: torch.Tensor | None = None, *known: Any) -> torch.Tensor | dict:
        """
        Restore one image, or match two.

        Args:
            fixed: ``(B, C, D, H, W)``.
            moving: of the same shape; None restores ``fixed``.
            known: while training, the fields of a :class:`~scripts.networks.KnownMap`, if some maps are known.

        Returns:
            without ``moving``: the restored image ``(B, C, D, H, W)``. With it a dictionary:

            - what the matching head found: ``affine``, ``(B, N, N + 1)``, voxels of the fixed grid to voxels of the
              moving image; ``local_displacement``, in the affine-aligned frame, and ``displacement``, both fused,
              ``(B, N, D, H, W)`` in voxels;
            - in evaluation mode ``warped``: the moving image in the fixed image's frame, ``(B, C, D, H, W)``;
            - while training, when the losses warp the clean image, ``restored`` instead: the ``corrupted`` image
              restored, ``(B, C, D, H, W)``, ``given``: that image as it was given, and ``features``: those of the
              moving image, f^g and f^l first, a tuple of ``(B, C, d, h, w)``, channels and size those of the level;
            - while training with known maps, ``known``, the fields of :class:`~scripts.networks.KnownMap`;
            - while training a symmetric network, ``backward``: the same with fixed and moving exchanged, of the pairs
              whose map is not known, if there are any.
        """
        if moving is None:
            return self.restoration_head(self.backbone(fixed)[1])
        if fixed.shape != moving.shape:
            raise ValueError(f"fixed and moving differ in shape: {tuple(fixed.shape)} and {tuple(moving.shape)}")
        both = Levels.of(self.backbone, torch.cat([fixed, moving]))
        one, other = both.map(lambda tensor: tensor.chunk(2)[0]), both.map(lambda tensor: tensor.chunk(2)[1])
        maps = KnownMap.of(*known) if known else None
        turned: list[int] = []
        if self.training and self.symmetric:  # one batch: pairs of two people follow, the other way round
            turned = [pair for pair in range(len(fixed)) if maps is None or not maps.pairs[pair]]
            one, other = one.followed_by(other, turned), other.followed_by(one, turned)
        all_maps = None if maps is None else maps.followed_by_unknown(turned)
        result = self.matching_head(one, other, all_maps) if self.matched or not self.training else {}
        if not self.training:
            return {"warped": self.warp(moving, result["displacement"]), **result}
        restored = other if self.corrupted == "moving" else one
        result["restored"], result["given"] = self.restoration_head(restored.local), restored.image
        result["features"] = other.features()
        backward = {"backward": _rows(result, slice(len(fixed), None))} if turned else {}
        result = {**_rows(result, slice(len(fixed))), **backward}
        if maps is not None:
            result["known"] = maps._asdict()
        return result

    def __prepare_scriptable__(self) -> nn.Module:
        """What ``torch.jit.script`` takes in place of this network: TorchScript knows one type of result, the image."""
        return Restoration(self.backbone, self.restoration_head).train(self.training)


def _rows(found: Any, rows: slice) -> Any:
    """Some of the pairs of what was found for a batch; numbers that belong to no pair stay."""
    if isinstance(found, dict):
        return {name: _rows(value, rows) for name, value in found.items()}
    if isinstance(found, tuple):
        return tuple(_rows(value, rows) for value in found)
    return found[rows] if found.dim() else found


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
