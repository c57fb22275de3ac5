# SPDX-License-Identifier: Apache-2.0
"""Coordinates, warps, displacement fields, scanner space."""

from .displacement import inside_volume, jacobian_determinant
from .grid_sample import grid_sample
from .scanner_space import (
    WorldMatch,
    homogeneous,
    resample,
    sampling_positions,
    scanner_jacobian_determinant,
    transform_points,
)
from .warp import (
    affine_about_centre,
    affine_displacement,
    compose,
    exponential,
    fuse,
    linear_matrix,
    sample,
    voxel_grid,
    warp,
)

__all__ = [
    "WorldMatch",
    "affine_about_centre",
    "affine_displacement",
    "compose",
    "exponential",
    "fuse",
    "grid_sample",
    "homogeneous",
    "inside_volume",
    "jacobian_determinant",
    "linear_matrix",
    "resample",
    "sample",
    "sampling_positions",
    "scanner_jacobian_determinant",
    "transform_points",
    "voxel_grid",
    "warp",
]
