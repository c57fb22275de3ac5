# SPDX-License-Identifier: Apache-2.0
"""The whole GVSL network and its parts: backbone, matching heads, spatial transformer, restoration head."""

from .activation_checkpointing import checkpoint_activations
from .adapters import NetworkBackbone
from .affine_head import AffineHead
from .backbone import UNetBackbone
from .blocks import UpJoin, after_first, group_norm, initialise, padding_to_multiple
from .correlation_head import CorrelationHead, expected_offset
from .cpu import SmallVolumeConv3d, part_convolutions
from .decoder_levels import side_by_side
from .deformable_head import CascadeHead, DeformableHead
from .find_weights import find_weights
from .flexible_unet import FlexibleEncoder, register_encoder
from .global_matching import GlobalMatchingHead
from .gvsl import GVSL, Restoration
from .known_map import KnownMap
from .levels import Levels
from .local_matching import LocalMatchingHead
from .matching_head import LocalHead, ZMatchingHead
from .place_descriptors import LevelDescriptors, decoder_level
from .pretrained import Embedding, Pretrained
from .recorded import another, describe, recorded
from .restoration_head import RestorationHead
from .spatial_transformer import SpatialTransformer
from .weights import load_weights, one_channel_repeated, present_names, repeat_stem

__all__ = [
    "GVSL",
    "AffineHead",
    "CascadeHead",
    "CorrelationHead",
    "DeformableHead",
    "Embedding",
    "FlexibleEncoder",
    "GlobalMatchingHead",
    "KnownMap",
    "LevelDescriptors",
    "Levels",
    "LocalHead",
    "LocalMatchingHead",
    "NetworkBackbone",
    "Pretrained",
    "Restoration",
    "RestorationHead",
    "SmallVolumeConv3d",
    "SpatialTransformer",
    "UNetBackbone",
    "UpJoin",
    "ZMatchingHead",
    "after_first",
    "another",
    "checkpoint_activations",
    "decoder_level",
    "describe",
    "expected_offset",
    "find_weights",
    "group_norm",
    "initialise",
    "load_weights",
    "one_channel_repeated",
    "padding_to_multiple",
    "part_convolutions",
    "present_names",
    "recorded",
    "register_encoder",
    "repeat_stem",
    "side_by_side",
]
