# SPDX-License-Identifier: Apache-2.0
"""The terms of the pre-training loss (paper, section 3.4): matching, smoothness, restoration, redundancy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..errors import InputError, check_numbers
from ..spatial.displacement import inside_volume
from ..spatial.tissue import tissue
from ..spatial.warp import warp as sample_at
from .local_ncc import LocalNCCLoss
from .redundancy import redundancy
from .smoothness import SmoothnessLoss


class Term(nn.Module):
    """
    A term of :class:`~scripts.losses.GVSLLoss`: a number of one match, without its weight.

    Args:
        weight: in the sum; 0 is logged only.
    """

    both_ways = True
    """Whether a match the other way round counts too."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, found: Mapping[str, Any], clean: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """
        Args:
            found: one way's match, as :class:`~scripts.networks.GVSL` gives it while training.
            clean: the clean images ``fixed`` and ``moving``, ``(B, C, D, H, W)``.

        Returns:
            scalar.
        """
        raise NotImplementedError


def people(found: Mapping[str, Any]) -> list[slice]:
    """The pairs of a batch whose map is not known, one by one; all at once where none is."""
    if "known" not in found:
        return [slice(None)]
    return [slice(pair, pair + 1) for pair, is_known in enumerate(found["known"]["pairs"]) if not is_known]


class MatchingTerm(Term):
    """
    How unlike the fixed image the warped clean moving image is, within the field of view. Pairs whose map is known do
    not count: they have terms of their own.

    Args:
        similarity: (warped, fixed, mask) to a scalar; :class:`~scripts.losses.LocalNCCLoss` by default.
        warp: (image, displacement) to the warped image; once by trilinear interpolation by default.
        tissue_threshold: count only where the fixed image shows tissue, see :func:`~scripts.spatial.tissue`; None for
            everywhere.
        weight: see :class:`Term`; 0 for restoration only.
    """

    def __init__(
        self,
        similarity: nn.Module | None = None,
        warp: nn.Module | None = None,
        tissue_threshold: float | None = None,
        weight: float = 1.0,
    ) -> None:
        super().__init__(weight)
        self.similarity = LocalNCCLoss() if similarity is None else similarity
        self.warp = sample_at if warp is None else warp
        self.tissue_threshold = tissue_threshold

    def forward(self, found: Mapping[str, Any], clean: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """See :meth:`Term.forward`."""
        displacement = found["displacement"]
        scores = []
        for pair in people(found):
            fixed, map_ = clean["fixed"][pair], displacement[pair]
            counted = inside_volume(map_.detach())
            if self.tissue_threshold is not None:
                counted = counted & (tissue(fixed, self.tissue_threshold) > 0)
            scores.append(self.similarity(self.warp(clean["moving"][pair], map_), fixed, counted))
        return torch.stack(scores).mean() if scores else displacement.new_zeros(())


class SmoothnessTerm(Term):
    """
    Smoothness of the displacement, of pairs whose map is not known.

    Args:
        field: "local_displacement", or "displacement" for the fused one.
        smoothness: of a field; :class:`~scripts.losses.SmoothnessLoss` by default.
        weight: see :class:`Term`.
    """

    def __init__(
        self, field: str = "local_displacement", smoothness: nn.Module | None = None, weight: float = 1.0
    ) -> None:
        super().__init__(weight)
        self.field = field
        self.smoothness = SmoothnessLoss() if smoothness is None else smoothness

    def forward(self, found: Mapping[str, Any], clean: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """See :meth:`Term.forward`."""
        scores = [self.smoothness(found[self.field][pair]) for pair in people(found)]
        return torch.stack(scores).mean() if scores else found[self.field].new_zeros(())


class RestorationTerm(Term):
    """
    Mean squared error of the restored image.

    Args:
        corrupted: which image was restored, "moving" or "fixed", as given to the network.
        weight: see :class:`Term`; 0 for matching only.
    """

    def __init__(self, corrupted: str = "moving", weight: float = 1.0) -> None:
        super().__init__(weight)
        if corrupted not in ("moving", "fixed"):
            raise InputError(f"corrupted is 'moving' or 'fixed', not '{corrupted}'")
        self.corrupted = corrupted

    def forward(self, found: Mapping[str, Any], clean: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """See :meth:`Term.forward`."""
        return (found["restored"].float() - clean[self.corrupted]).square().mean()


class MaskedRestorationTerm(RestorationTerm):
    """
    The same where the network was given something else than the clean image, for masked autoencoding: what it saw
    teaches nothing.

    Args:
        corrupted: see :class:`RestorationTerm`.
        weight: see :class:`Term`.
    """

    def forward(self, found: Mapping[str, Any], clean: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """See :meth:`Term.forward`."""
        image = clean[self.corrupted]
        hidden = (found["given"] != image).to(image)
        error = (found["restored"].float() - image).square()
        return (error * hidden).sum() / hidden.sum().clamp(min=1)


class RedundancyTerm(Term):
    """
    Mean :func:`~scripts.losses.redundancy` of the features, which the paper does not have.

    Args:
        levels: of how many levels, f^g and f^l first; None for all.
        weight: see :class:`Term`.
    """

    def __init__(self, levels: int | None = None, weight: float = 1.0) -> None:
        super().__init__(weight)
        if levels is not None:
            check_numbers({"redundancy_levels": levels}, lowest=1, whole=True)
        self.levels = levels

    def forward(self, found: Mapping[str, Any], clean: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """See :meth:`Term.forward`."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.weight > 0):  # else only logged
            return torch.stack([redundancy(level).mean() for level in found["features"][: self.levels]]).mean()
