# SPDX-License-Identifier: Apache-2.0
"""
How images are written: in the place of the scan they belong to, promising no more than its own header does.

An image on the scan's own grid gets the geometry of the scan's header as it stands: codes, sform, qform, voxel sizes,
unit. So every tool places both alike, or refuses both. On another grid it gets a sform and a qform that nibabel and
ITK-based tools each place where they have the scan; a sheared grid gets no qform, which cannot say it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.data import MetaTensor, NibabelWriter
from monai.utils import convert_to_numpy, get_equivalent_dtype

from ..errors import InputError
from .geometry import RAS_TO_LPS, ScanGeometry, UnusableScan, orthogonal, same_place
from .reading import scan_geometry
from .scan_checks import scan_exists

ALIGNED = 2
"""Code of a sform or qform that is "aligned to another file": what is known where that file has no code."""

PLACED_BY = (
    *("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("srow_x", "srow_y", "srow_z"),
)
"""Fields of a NIfTI header that say where a volume lies, besides the first four of ``pixdim`` and the unit."""


def geometry_of(image: MetaTensor) -> ScanGeometry:
    """
    Where the scan lies that an image was read from.

    Args:
        image: ``(C, D, H, W)``, or a batch of one of them.

    Returns:
        that of its file; for an image without one, its own affine matrix and size.
    """
    path = image.meta.get("filename_or_obj")
    path = path[0] if isinstance(path, (list, tuple)) else path
    if path and scan_exists(str(path)):
        try:
            return scan_geometry(str(path))
        except UnusableScan as error:
            raise InputError(f"{path} {error}") from error
    affine = np.asarray(image.affine, dtype=float).reshape(-1, *image.affine.shape[-2:])[0]
    return ScanGeometry(affine, tuple(image.shape[-3:]), affine)


def write_nifti(array: np.ndarray, affine: np.ndarray, path: Path, like: ScanGeometry | None = None) -> None:
    """
    Write a NIfTI file.

    Args:
        array: ``(D, H, W)`` or ``(D, H, W, K)``.
        affine: ``(4, 4)``, voxels to millimetres, RAS.
        path: destination.
        like: where the scan lies that the image belongs to; None for the scanner's space.
    """
    nib.save(placed_image(array, affine, like), path)


def placed_image(array: np.ndarray, affine: np.ndarray, like: ScanGeometry | None = None) -> nib.Nifti1Image:
    """The image that :func:`write_nifti` writes."""
    image = (nib.Nifti1Image if max(array.shape) < 2**15 else nib.Nifti2Image)(array, None, dtype=array.dtype)
    header, size = image.header, array.shape[:3]
    header.set_xyzt_units("mm")
    if like is None or like.header is None:
        _place(header, affine, size, 1, 1)
    elif size == like.size and same_place(affine, like.affine, size):
        for name in PLACED_BY:
            header[name] = like.header[name]
        header["pixdim"][:4] = like.header["pixdim"][:4]
        header["xyzt_units"] = like.header["xyzt_units"] & 7
        _shorten_quaternion(header)
    else:
        unit = np.diag([1 / like.unit] * 3 + [1.0])
        header["xyzt_units"] = like.header["xyzt_units"] & 7
        sform, qform = int(like.header["sform_code"]), int(like.header["qform_code"])
        to_itk = like.to_itk()
        if np.array_equal(to_itk, np.eye(4)):
            _place(header, unit @ affine, size, sform or qform or ALIGNED, qform or sform or ALIGNED)
        else:  # with these codes ITK takes the qform, and nibabel the sform
            header.set_qform(unit @ to_itk @ affine, qform or ALIGNED, strip_shears=True)
            header.set_sform(unit @ affine, max(sform, ALIGNED))
    return image


def _shorten_quaternion(header: nib.Nifti1Header) -> None:
    """A rotation that was rounded a little beyond unit length is read (CANDI's files), but nibabel refuses it."""
    names = ("quatern_b", "quatern_c", "quatern_d")
    length = np.linalg.norm([float(header[name]) for name in names])
    if 1 < length < 1.001:
        for name in names:
            header[name] = float(header[name]) / length


def _place(header: nib.Nifti1Header, affine: np.ndarray, size: tuple[int, ...], sform: int, qform: int) -> None:
    """Set both matrices; the qform, which cannot say shear, is left without code where there is any."""
    header.set_qform(affine, qform if orthogonal(affine, size) else 0, strip_shears=True)
    header.set_sform(affine, sform)


def write_displacement(
    displacement: np.ndarray,
    affine: np.ndarray,
    path: Path,
    fixed: ScanGeometry | None = None,
    moving: ScanGeometry | None = None,
) -> None:
    """
    Write a displacement field as ITK, ANTs, SimpleITK and 3D Slicer read it: a NIfTI vector image (intent 1007,
    ``(D, H, W, 1, 3)``) of millimetres in LPS, added to a point of the FIXED scan's space to get the point of the
    MOVING scan's space. The spaces are those that ITK gives to the two files, where that differs from nibabel's.

    Args:
        displacement: ``(3, D, H, W)`` in millimetres, RAS.
        affine: ``(4, 4)``, voxels to millimetres, RAS.
        path: destination.
        fixed: where the fixed scan lies, see :func:`write_nifti`.
        moving: where the moving scan lies.
    """
    from_fixed, from_moving = (np.eye(4) if scan is None else scan.to_itk() for scan in (fixed, moving))
    if not (np.array_equal(from_fixed, np.eye(4)) and np.array_equal(from_moving, np.eye(4))):
        voxels = np.indices(displacement.shape[1:], dtype=float).reshape(3, -1)
        points = affine[:3, :3] @ voxels + affine[:3, 3:]
        targets = points + displacement.reshape(3, -1)
        in_itk = [matrix[:3, :3] @ x + matrix[:3, 3:] for matrix, x in ((from_moving, targets), (from_fixed, points))]
        displacement = (in_itk[0] - in_itk[1]).reshape(displacement.shape)
    vectors = np.moveaxis(displacement, 0, -1)[:, :, :, None, :] * np.diag(RAS_TO_LPS)[:3]
    image = placed_image(vectors.astype(np.float32), affine, fixed)
    image.header.set_intent("vector")
    nib.save(image, path)


class ScanWriter(NibabelWriter):
    """MONAI writer for ``SaveImaged``: NIfTI files placed like the scan that an image was made from."""

    def set_metadata(self, meta_dict: Any = None, resample: bool = True, **options: Any) -> None:
        """
        Args:
            meta_dict: of the image, with ``affine`` and the scan's path as ``filename_or_obj``.
            resample: images are written on the grid they have.
            options: of MONAI's.
        """
        super().set_metadata(meta_dict, resample=False, **options)
        path = meta_dict.get("filename_or_obj")
        self.like = scan_geometry(str(path)) if path and scan_exists(str(path)) else None

    def write(self, filename: Any, verbose: bool = False, **_: Any) -> None:
        """
        Args:
            filename: destination.
            verbose: of MONAI's writers.
        """
        dtype = get_equivalent_dtype(self.output_dtype, np.ndarray)
        array = convert_to_numpy(self.data_obj).astype(dtype, copy=False)
        write_nifti(array, np.asarray(self.affine, dtype=float), Path(filename), self.like)
