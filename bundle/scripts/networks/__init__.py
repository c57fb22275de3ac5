# SPDX-License-Identifier: Apache-2.0
"""The backbone, the heads and the whole GVSL network."""

from .activation_checkpointing import checkpoint_activations
from .adapters import NetworkBackbone
from .backbone import UNetBackbone
from .blocks import UpJoin, after_first, group_norm, initialise, padding_to_multiple
from .correlation_head import CascadeHead, CorrelationHead, expected_offset
from .cpu import SmallVolumeConv3d, part_convolutions
from .decoder_levels import decoder_levels, side_by_side
from .global_matching import GlobalMatchingHead
from .gvsl import GVSL, Restoration
from .local_matching import LocalMatchingHead
from .matching_head import AffineHead, DeformableHead, RestorationHead, ZMatchingHead, deformable_head, match
from .place_descriptors import LevelDescriptors, decoder_level

__all__ = [
    "GVSL",
    "AffineHead",
    "CascadeHead",
    "CorrelationHead",
    "DeformableHead",
    "GlobalMatchingHead",
    "LevelDescriptors",
    "LocalMatchingHead",
    "NetworkBackbone",
    "Restoration",
    "RestorationHead",
    "SmallVolumeConv3d",
    "UNetBackbone",
    "UpJoin",
    "ZMatchingHead",
    "after_first",
    "checkpoint_activations",
    "decoder_level",
    "decoder_levels",
    "deformable_head",
    "expected_offset",
    "group_norm",
    "initialise",
    "match",
    "padding_to_multiple",
    "part_convolutions",
    "side_by_side",
]
