# SPDX-License-Identifier: Apache-2.0
"""The pre-training loss, its terms, and what they measure."""

from .gvsl_loss import GVSLLoss
from .known_map_terms import KnownMapTerm, PeopleContrastTerm, PlaceContrastTerm
from .local_ncc import LocalNCCLoss, box_sum
from .place_contrast import PlaceContrastLoss
from .redundancy import redundancy
from .smoothness import SmoothnessLoss
from .terms import MaskedRestorationTerm, MatchingTerm, RedundancyTerm, RestorationTerm, SmoothnessTerm, Term

__all__ = [
    "GVSLLoss",
    "KnownMapTerm",
    "LocalNCCLoss",
    "MaskedRestorationTerm",
    "MatchingTerm",
    "PeopleContrastTerm",
    "PlaceContrastLoss",
    "PlaceContrastTerm",
    "RedundancyTerm",
    "RestorationTerm",
    "SmoothnessLoss",
    "SmoothnessTerm",
    "Term",
    "box_sum",
    "redundancy",
]
