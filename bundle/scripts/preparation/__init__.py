# SPDX-License-Identifier: Apache-2.0
"""Scans prepared once, before training: crops, organs."""

from .crop_to_label import CropToLabel, crop_to
from .extract_lungs import ExtractLungs, air_in_body, close_gaps
from .prepare import Preparation, prepare_case, write_image

__all__ = [
    "CropToLabel",
    "ExtractLungs",
    "Preparation",
    "air_in_body",
    "close_gaps",
    "crop_to",
    "prepare_case",
    "write_image",
]
