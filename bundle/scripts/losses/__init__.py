# SPDX-License-Identifier: Apache-2.0
"""The terms of the loss."""

from .gvsl_loss import GVSLLoss, LocalNCCLoss, SmoothnessLoss, box_sum
from .place_contrast import PlaceContrastLoss
from .redundancy import redundancy

__all__ = [
    "GVSLLoss",
    "LocalNCCLoss",
    "PlaceContrastLoss",
    "SmoothnessLoss",
    "box_sum",
    "redundancy",
]
