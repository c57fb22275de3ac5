# SPDX-License-Identifier: Apache-2.0
"""The geometry of a NIfTI file: sform, qform, voxel sizes and units, as nibabel and as ITK read them."""

from __future__ import annotations

import gzip
import math
from pathlib import Path
from typing import Any, BinaryIO

import itk
import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.spatialimages import HeaderDataError

from .geometry import (
    RAS_TO_LPS,
    SAME_PLACE,
    ScanGeometry,
    UnusableScan,
    check_affine,
    distance,
    orthogonal,
    shear,
    straightened,
)

UNITS = {0: (1.0, ""), 1: (1000.0, "metres"), 2: (1.0, "millimetres"), 3: (1e-3, "micrometres")}
"""Millimetres of a spatial unit of ``xyzt_units``, and its name; unknown is taken for millimetres."""

TOLD = 0.1
"""Voxels by which sform and qform may differ before it is said: more than rounding does."""


class Nifti1(nib.Nifti1Header):
    """Accepts rotations that were rounded a little beyond unit length, as CANDI's."""

    quaternion_threshold = 10 * np.finfo(np.float32).eps


class Nifti2(nib.Nifti2Header):
    """The same for NIfTI-2."""

    quaternion_threshold = np.float64(10 * np.finfo(np.float32).eps)


def open_nifti(path: str | Path) -> BinaryIO:
    """Open a NIfTI file, compressed or not, whatever its name says."""
    with Path(path).open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if compressed else Path(path).open("rb")  # type: ignore[return-value]


def read_header(path: str | Path) -> nib.Nifti1Header:
    """
    The header as it stands in the file: nibabel's own loading repairs voxel sizes without a word.

    Raises:
        UnusableScan: for another format, or a header that contradicts itself.
    """
    with open_nifti(path) as file:
        start = file.read(4)
        kind = Nifti2 if start in (b"\x1c\x02\0\0", b"\0\0\x02\x1c") else Nifti1  # the length of the header
        file.seek(0)
        header = kind.from_fileobj(file, check=False)
    if bytes(header["magic"])[:2] not in (b"n+", b"ni"):
        raise UnusableScan("cannot be read (no NIfTI file, whatever its name says)")
    offset, least = float(header["vox_offset"]), header.sizeof_hdr
    if not offset >= least:
        raise UnusableScan(f"has its values at byte {offset:g}, within its header (vox_offset); set {least + 4} there")
    header["pixdim"][0] = -1 if header["pixdim"][0] < 0 else 1  # as ITK has it; old files have 0 there
    return header


def read_values(path: str | Path, header: nib.Nifti1Header) -> tuple[np.ndarray, int]:
    """
    The values of a NIfTI file, in the shape of its header. It is read to its end, where a compressed one's checksum is.

    Returns:
        the values, and the number of bytes behind them.

    Raises:
        UnusableScan: for complex numbers, colours, types or scales that are not valid.
    """
    try:
        kind = header.get_data_dtype()
    except KeyError:
        kind = np.dtype("V")
    if kind.kind == "c":
        raise UnusableScan("holds complex numbers; store their magnitude (numpy.abs)")
    if kind.names:
        raise UnusableScan(f"holds colours ({''.join(kind.names)}); store one grey value a voxel")
    if kind.kind not in "iuf":
        raise UnusableScan(f"holds values of datatype {int(header['datatype'])}, which is not read; store float32")
    try:
        header.get_slope_inter()
    except HeaderDataError as error:
        slope, intercept = (float(header[name]) for name in ("scl_slope", "scl_inter"))
        raise UnusableScan(
            f"has scl_slope {slope:g} and scl_inter {intercept:g}; set right ones in the header, 0 for none"
        ) from error
    with open_nifti(path) as file:
        array = np.asanyarray(nib.arrayproxy.ArrayProxy(file, header))
        behind = 0
        file.seek(int(header["vox_offset"]) + math.prod(header.get_data_shape()) * kind.itemsize)
        try:
            while part := file.read(2**20):
                behind += len(part)
        except gzip.BadGzipFile as error:
            if "Not a gzipped file" not in str(error):  # something stands behind what is whole
                raise
    return array, behind


def nifti_geometry(path: str | Path, header: nib.Nifti1Header | None = None) -> ScanGeometry:
    """
    Where a NIfTI file lies: by its sform where that is set, else by its qform, as nibabel, FSL and SPM have it.

    Args:
        path: of the file.
        header: of it, where it was read before.

    Returns:
        the geometry, with what had to be decided.

    Raises:
        UnusableScan: where nothing says how large voxels are, or where codes or matrices are not valid.
    """
    header = read_header(path) if header is None else header
    size = tuple(int(n) for n in header.get_data_shape()[:3])
    codes = {name: int(header[name]) for name in ("sform_code", "qform_code")}
    for name, code in codes.items():
        if not 0 <= code <= 5:
            raise UnusableScan(f"has {name} {code}, which NIfTI does not know (0 to 5); set a right one")
    unit, unit_name = UNITS.get(int(header["xyzt_units"]) & 7, (1.0, ""))
    affine = np.diag([unit, unit, unit, 1.0]) @ _best_affine(header, size)
    check_affine(affine)
    notes = {}
    if unit_name and unit != 1:
        notes["units"] = f"is in {unit_name} and read so"
    if not any(codes.values()):
        notes["no orientation"] = (
            "does not say how it lies (qform_code and sform_code are 0): taken as nibabel does, axes to the left, to "
            "the front and upwards; results in its place say as little"
        )
    apart = _disagreement(header, affine, unit, size) if codes["sform_code"] else 0.0
    if apart > TOLD * voxel_sizes(affine).min():
        other = "qform" if codes["qform_code"] else "voxel sizes (pixdim)"
        by = f"differ by up to {apart:.1f} mm" if np.isfinite(apart) else "differ (the qform is no rotation)"
        notes[f"sform and {other}"] = f"has a sform and {other} that {by}: the sform is used; results keep both"
    straight = orthogonal(affine, size)
    if distance(affine, straightened(affine), size) > TOLD * voxel_sizes(affine).min():
        notes["shear"] = (
            f"has axes {shear(affine):.1f} degrees off the right angle, which is respected; ITK-based tools (3D "
            "Slicer) show neither it nor results in its place where they lie"
        )
    agreed = straight and any(codes.values()) and apart <= SAME_PLACE * voxel_sizes(affine).min()
    known = agreed and isinstance(header, Nifti1)  # ITK reads no NIfTI-2
    return ScanGeometry(affine, size, affine if known else _as_itk_reads(path), header, unit, notes)


def _best_affine(header: nib.Nifti1Header, size: tuple[int, ...]) -> np.ndarray:
    """nibabel's choice, ``(4, 4)``, in the file's units."""
    sizes = header["pixdim"][1 : 1 + len(size)]
    if not int(header["sform_code"]) and not (np.isfinite(sizes).all() and (sizes > 0).all()):
        shown = " x ".join(f"{value:g}" for value in sizes)
        raise UnusableScan(f"has voxels of {shown} (pixdim) and no sform; set their true size in the header")
    try:
        return header.get_best_affine()
    except ValueError as error:  # a quaternion longer than 1
        raise UnusableScan(f"has a qform that is no rotation ({error}); set a right one") from error


def _disagreement(header: nib.Nifti1Header, affine: np.ndarray, unit: float, size: tuple[int, ...]) -> float:
    """Millimetres between the places by sform and by qform, or without one by voxel sizes; infinite if that is bad."""
    sizes = np.array([*header["pixdim"][1 : 1 + len(size)], *np.ones(3 - len(size))], dtype=float) * unit
    if not np.isfinite(sizes).all():
        return np.inf
    try:
        if int(header["qform_code"]):
            other = np.diag([unit, unit, unit, 1.0]) @ header.get_qform()
        else:
            sizes[len(size) :] = voxel_sizes(affine)[len(size) :]
            other = affine @ np.diag([*sizes / voxel_sizes(affine), 1.0])
    except (ValueError, HeaderDataError):
        return np.inf
    return distance(affine, other, size) if np.isfinite(other).all() else np.inf


def _as_itk_reads(path: str | Path) -> np.ndarray | None:
    """``(4, 4)``, RAS, asked of ITK itself; None where it refuses the file."""
    display = itk.Object.GetGlobalWarningDisplay()
    itk.Object.SetGlobalWarningDisplay(False)  # it would warn of what is said here
    try:
        reader = itk.ImageFileReader[itk.Image[itk.F, 3]].New(FileName=str(path))
        reader.UpdateOutputInformation()
        return itk_affine(reader.GetOutput())
    except RuntimeError:
        return None
    finally:
        itk.Object.SetGlobalWarningDisplay(display)


def itk_affine(image: Any) -> np.ndarray:
    """Voxels to millimetres of an ITK image, ``(4, 4)``, RAS; an image of fewer axes lies in the first ones."""
    n = min(3, len(image.GetSpacing()))
    affine = np.eye(4)
    affine[:n, :n] = (itk.array_from_matrix(image.GetDirection()) * np.asarray(image.GetSpacing()))[:n, :n]
    affine[:n, 3] = np.asarray(image.GetOrigin())[:n]
    return RAS_TO_LPS @ affine
