# SPDX-License-Identifier: Apache-2.0
"""Where a scan lies: its affine matrix, how ITK-based tools read the same file, and what had to be decided."""

from __future__ import annotations

from dataclasses import dataclass, field

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes

from ..errors import InputError

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""From nibabel's axes (right, anterior, superior) to those of DICOM and ITK; and back."""

SAME_PLACE = 1e-3
"""Voxels by which two geometries may differ and still be one."""

SAME_GRID = 0.1
"""Voxels by which a label map may lie beside its scan: what other programs round."""


class UnusableScan(InputError):
    """A scan that cannot be used: the message goes on from its path."""


@dataclass(frozen=True)
class ScanGeometry:
    """
    Where a scan lies.

    Args:
        affine: ``(4, 4)``, voxels to millimetres, RAS, as it is used.
        size: voxels of the spatial axes.
        itk_affine: the same as ITK-based tools (3D Slicer, ANTs, SimpleITK) read this file; None where they refuse it.
        header: of a NIfTI file, as it stands in the file; None for other formats.
        unit: millimetres of one unit of the header.
        notes: what had to be decided, by kind.
    """

    affine: np.ndarray
    size: tuple[int, ...]
    itk_affine: np.ndarray | None
    header: nib.Nifti1Header | None = None
    unit: float = 1.0
    notes: dict[str, str] = field(default_factory=dict)

    def to_itk(self) -> np.ndarray:
        """``(4, 4)``, from the place of a point to the one ITK-based tools give it; identity if they agree."""
        if self.itk_affine is None or same_place(self.affine, self.itk_affine, self.size):
            return np.eye(4)
        return self.itk_affine @ np.linalg.inv(self.affine)


def corners(size: tuple[int, ...]) -> np.ndarray:
    """The corner voxels of a volume, ``(4, 8)``, homogeneous; axes beyond the size are 0."""
    last = [*(n - 1 for n in size[:3]), *[0] * (3 - len(size[:3]))]
    grid = np.array(np.meshgrid(*([0, n] for n in last), indexing="ij"), dtype=float).reshape(3, -1)
    return np.vstack([grid, np.ones(8)])


def distance(first: np.ndarray, second: np.ndarray, size: tuple[int, ...]) -> float:
    """How far apart two affine matrices ``(4, 4)`` place the same voxel of a volume at most, in millimetres."""
    return float(np.linalg.norm(((first - second) @ corners(size))[:3], axis=0).max())


def same_place(first: np.ndarray, second: np.ndarray, size: tuple[int, ...]) -> bool:
    """Whether two affine matrices place a volume alike, within :data:`SAME_PLACE` of a voxel."""
    return distance(first, second, size) <= SAME_PLACE * voxel_sizes(first).min()


def other_grid(label: ScanGeometry, scan: ScanGeometry) -> str | None:
    """
    How a label map lies beside its scan, and what to do; None where its voxels lie on the scan's. They may do so as
    ITK-based tools read both files: 3D Slicer writes a label map of a scan whose sform and qform differ by one of them.
    """
    if label.size != scan.size:
        apart = " and ".join("x".join(map(str, size)) for size in (label.size, scan.size)) + " voxels"
    else:
        tolerance = SAME_GRID * voxel_sizes(scan.affine).min()
        off = distance(label.affine, scan.affine, scan.size)
        if off > tolerance and label.itk_affine is not None and scan.itk_affine is not None:
            off = min(off, distance(label.itk_affine, scan.itk_affine, scan.size))
        if off <= tolerance:
            return None
        apart = f"up to {off:.3g} mm apart"
    return (
        f"({apart}): resample the label map, as by nibabel.processing.resample_from_to(label, scan, order=0), or name "
        "the one that was drawn on this scan"
    )


def shear(affine: np.ndarray) -> float:
    """By how many degrees the voxel axes are off the right angle, at most."""
    axes = affine[:3, :3] / np.maximum(voxel_sizes(affine), 1e-12)
    cosines = np.abs(axes.T @ axes)[np.triu_indices(3, 1)]
    return float(np.degrees(np.arcsin(np.clip(cosines, 0, 1))).max())


def straightened(affine: np.ndarray) -> np.ndarray:
    """The nearest affine matrix without shear, ``(4, 4)``: what a qform or an ITK image can say."""
    u, _, v = np.linalg.svd(affine[:3, :3] / voxel_sizes(affine))
    nearest = affine.copy()
    nearest[:3, :3] = u @ v * voxel_sizes(affine)
    return nearest


def orthogonal(affine: np.ndarray, size: tuple[int, ...]) -> bool:
    """Whether a rotation and voxel sizes alone place a volume as this affine matrix does."""
    return same_place(affine, straightened(affine), size)


def check_affine(affine: np.ndarray) -> None:
    """
    Raises:
        UnusableScan: for an affine matrix that maps no volume.
    """
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine)) < 1e-12 * max(1e-12, voxel_sizes(affine).max()) ** 3:
        raise UnusableScan(
            "has no valid orientation and spacing (its affine matrix is singular or not finite); set a right one, with "
            "nibabel's img.set_sform(affine, 1) for instance"
        )
