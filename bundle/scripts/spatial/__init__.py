# SPDX-License-Identifier: Apache-2.0
"""Coordinates, warps, displacement fields, scanner space."""

from .displacement import in_affine_frame, inside_volume, jacobian_determinant
from .grid_sample import grid_sample
from .label_sampling import resample_labels, sample_labels, warp_labels
from .level_grid import from_level, inverse_on_level, level_positions, on_level, to_level
from .robust_affine import AffineFit, robust_affine
from .scanner_space import (
    WorldMatch,
    homogeneous,
    resample,
    sampling_positions,
    scanner_jacobian_determinant,
    transform_points,
)
from .smoothing import box_mean
from .tissue import tissue
from .warp import (
    affine_about_centre,
    affine_displacement,
    apply_affine,
    compose,
    compose_affine,
    exponential,
    fuse,
    inverse_affine,
    linear_matrix,
    sample,
    voxel_grid,
    warp,
)

__all__ = [
    "AffineFit",
    "WorldMatch",
    "affine_about_centre",
    "affine_displacement",
    "apply_affine",
    "box_mean",
    "compose",
    "compose_affine",
    "exponential",
    "from_level",
    "fuse",
    "grid_sample",
    "homogeneous",
    "in_affine_frame",
    "inside_volume",
    "inverse_affine",
    "inverse_on_level",
    "jacobian_determinant",
    "level_positions",
    "linear_matrix",
    "on_level",
    "resample",
    "resample_labels",
    "robust_affine",
    "sample",
    "sample_labels",
    "sampling_positions",
    "scanner_jacobian_determinant",
    "tissue",
    "to_level",
    "transform_points",
    "voxel_grid",
    "warp",
    "warp_labels",
]
