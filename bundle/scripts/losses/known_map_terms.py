# SPDX-License-Identifier: Apache-2.0
"""Terms of the pre-training loss for pairs whose map is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..networks.known_map import seeds_of
from ..spatial.displacement import inside_volume
from ..spatial.tissue import tissue
from ..spatial.warp import vector
from .place_contrast import PlaceContrastLoss
from .terms import Term


class _KnownTerm(Term):
    """A known map leads one way."""

    both_ways = False


class PlaceContrastTerm(_KnownTerm):
    """
    Contrast of places of pairs whose map is known: 0 without one.

    Args:
        contrast: see :class:`~scripts.losses.PlaceContrastLoss`.
        weight: see :class:`~scripts.losses.Term`.
    """

    def __init__(self, contrast: PlaceContrastLoss | None = None, weight: float = 1.0) -> None:
        super().__init__(weight)
        self.contrast = PlaceContrastLoss() if contrast is None else contrast

    def forward(self, found: Mapping[str, Any], clean: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """See :meth:`~scripts.losses.Term.forward`."""
        if "known" not in found or "places" not in found:
            return clean["fixed"].new_zeros(())
        places, known = found["places"], found["known"]
        return self.contrast(
            places["fixed"],
            places["moving"],
            places["temperatures"],
            clean["fixed"],
            clean["moving"],
            known["pairs"],
            known["displacement"],
        )


class PeopleContrastTerm(PlaceContrastTerm):
    """
    The same of two people: the map that was found for them is taken for the true one, where its whole way is inside the
    moving view. An experiment, see ``people`` among the arms of the evidence.

    Args:
        contrast: see :class:`PlaceContrastTerm`.
        weight: see :class:`PlaceContrastTerm`.
    """

    def forward(self, found: Mapping[str, Any], clean: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """See :meth:`~scripts.losses.Term.forward`."""
        if "known" not in found:
            return clean["fixed"].new_zeros(())
        displacement = found["displacement"].detach()
        pairs = seeds_of(torch.tensor([not seed for seed in found["known"]["pairs"]]), displacement)
        return super().forward({**found, "known": {"pairs": pairs, "displacement": displacement}}, clean)


class KnownMapTerm(_KnownTerm):
    """
    Mean distance along each axis, in voxels, of the map that was found to the one that is known, where the fixed view
    shows tissue and the known map stays inside the moving view; 0 without one.

    Args:
        threshold: see :func:`~scripts.spatial.tissue`.
        weight: see :class:`~scripts.losses.Term`.
    """

    def __init__(self, threshold: float = 0.04, weight: float = 1.0) -> None:
        super().__init__(weight)
        self.threshold = threshold

    def forward(self, found: Mapping[str, Any], clean: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """See :meth:`~scripts.losses.Term.forward`."""
        if "known" not in found:
            return clean["fixed"].new_zeros(())
        pairs, true = found["known"]["pairs"], found["known"]["displacement"]
        counted = tissue(clean["fixed"], self.threshold) * inside_volume(true)
        known = vector([float(seed != 0) for seed in pairs], counted)
        counted = counted * known.reshape(-1, *[1] * (counted.dim() - 1))
        distance = (found["displacement"] - true).abs().mean(dim=1, keepdim=True)
        return (distance * counted).sum() / counted.sum().clamp(min=1)
