# SPDX-License-Identifier: Apache-2.0
"""Augmentation, corruption, intensities, label codes."""

from .affine_elastic import RandAffineElasticd, smooth
from .corruption import RandBezierIntensity, RandEachd, RandInpaint, RandLocalShuffle, RandToneCurve
from .drawn_structures import DrawnStructuresd, drawn_structures
from .intensity import ScaleIntensityd, scale_intensity
from .label_codes import CodesToClassesd, output_codes
from .mask_blocks import RandMaskBlocks
from .matching_views import RandMatchingViewsd
from .padding import FillPaddingd, find_padding
from .zoom import Zoomd

__all__ = [
    "CodesToClassesd",
    "DrawnStructuresd",
    "FillPaddingd",
    "RandAffineElasticd",
    "RandBezierIntensity",
    "RandEachd",
    "RandInpaint",
    "RandLocalShuffle",
    "RandMaskBlocks",
    "RandMatchingViewsd",
    "RandToneCurve",
    "ScaleIntensityd",
    "Zoomd",
    "drawn_structures",
    "find_padding",
    "output_codes",
    "scale_intensity",
    "smooth",
]
