# SPDX-License-Identifier: Apache-2.0
"""What one does with a model: match scans, carry labels, write features."""

from .carried_set import describe_carried
from .features import Correspond, WriteFeatures, list_scans, similarity_map
from .finer_grid import FinerGrid
from .inferer import MatchingInferer
from .label_propagation import list_propagation, take_corrected
from .list_pairs import list_pairs
from .named_scans import expand, look_up
from .point_files import PointFile, read_points
from .points import carry_points, invert
from .refinement import LocalNCCGradient, Refinement
from .saved_labels import SavedLabelsInferer, saved_labels
from .vote_labels import VoteLabels
from .whole_affine import split_anew
from .write_match import (
    WriteMatch,
    label_codes,
    label_probabilities,
    plain,
    world_match,
)

__all__ = [
    "Correspond",
    "FinerGrid",
    "LocalNCCGradient",
    "MatchingInferer",
    "PointFile",
    "Refinement",
    "SavedLabelsInferer",
    "VoteLabels",
    "WriteFeatures",
    "WriteMatch",
    "carry_points",
    "describe_carried",
    "expand",
    "invert",
    "label_codes",
    "label_probabilities",
    "list_pairs",
    "list_propagation",
    "list_scans",
    "look_up",
    "plain",
    "read_points",
    "saved_labels",
    "similarity_map",
    "split_anew",
    "take_corrected",
    "world_match",
]
