# SPDX-License-Identifier: Apache-2.0
"""What makes a scan unusable, and what had to be decided about where it lies."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from nibabel.affines import voxel_sizes

from ..transforms.intensity import looks_like_ct
from .channels import channel_files
from .dicom_series import is_series
from .geometry import ScanGeometry, UnusableScan, same_place
from .label_maps import is_label_map
from .reading import read_scan, scan_geometry

LARGEST = 5000.0
"""Millimetres of the longest axis that a scan may have: more says that its unit or voxel size is wrong."""

ODD = 4.0
"""How many times longer or shorter than the others a scan is that is pointed out."""


NO_TEXT = "has a name that is not UTF-8 (Latin-1, perhaps): rename it"

STEPS = 1000
"""Of 32-bit floating point that a scan's values must span, unless it holds all of them."""


@dataclass(frozen=True)
class ScanCheck:
    """
    What checking a scan found.

    Args:
        problem: what makes it unusable, and its remedy; None for a usable scan.
        notes: what had to be decided about its geometry, by kind.
        size: voxels of its axes.
        spacing: their sizes in millimetres.
        label_map: whether it is a label map or a mask, by what it holds and by its name.
        ct: whether its values are those of a CT.
        digest: of its voxels, see :func:`voxel_digest`.
    """

    problem: str | None = None
    notes: Mapping[str, str] = field(default_factory=dict)
    size: tuple[int, ...] = ()
    spacing: tuple[float, ...] = ()
    label_map: bool = False
    ct: bool = False
    digest: str = ""


def check_scan(path: str, spatial_dims: int = 3, min_size: int = 4, constant: bool = False) -> str | None:
    """The problem that :func:`inspect_scan` finds, None for a usable scan."""
    return inspect_scan(path, spatial_dims, min_size, constant).problem


def inspect_scan(
    path: str, spatial_dims: int = 3, min_size: int = 4, constant: bool = False, channels: int = 1
) -> ScanCheck:
    """
    Read a scan and say what makes it unusable.

    Args:
        path: see :func:`read_scan`.
        spatial_dims: 2 or 3.
        min_size: voxels that each axis must have.
        constant: accept an image that is the same everywhere (an empty label map).
        channels: that it must have: in its file, or in files beside it, see :func:`~scripts.data.channel_files`.

    Returns:
        what was found.
    """
    if not is_text(path):
        return ScanCheck(NO_TEXT)
    if not scan_exists(path):
        return ScanCheck("does not exist; correct dataset.json, or its path")
    try:
        geometry = scan_geometry(path)
        problem = _problem_of_size(geometry)
        if problem:
            return ScanCheck(problem)
        geometry, image = read_scan(path)
    except UnusableScan as error:
        return ScanCheck(str(error))
    except Exception as error:  # a damaged file may raise anything, from any reader
        reason = str(error).strip().splitlines()[-1][:120] if str(error).strip() else type(error).__name__
        return ScanCheck(f"cannot be read ({reason}); it is damaged or of another format: copy it anew")
    spacing = tuple(round(float(value), 6) for value in voxel_sizes(geometry.affine)[: len(geometry.size)])
    files = channel_files(path, channels)
    problem = _problem(image, geometry, spatial_dims, min_size, constant, channels // len(files))
    for further in files[1:]:
        problem = problem or _further_problem(further, geometry)
    told = is_label_map(image, path), _is_ct(image), voxel_digest(image)
    return ScanCheck(problem, geometry.notes, geometry.size, spacing, *told)


def voxel_digest(values: np.ndarray) -> str:
    """
    A digest of the voxels alone, in 32-bit floating point: a copy that is compressed otherwise, stored as another type
    or with a scale factor, or placed elsewhere, has the same.

    Args:
        values: of a scan, of any type.

    Returns:
        32 hexadecimal digits.
    """
    with np.errstate(over="ignore"):  # what is beyond the range has a problem, and is no copy
        content = np.array(values.T, np.float32, order="C")  # in the order that files have them
    content += 0  # -0 becomes 0
    found = hashlib.blake2b(str(content.shape).encode(), digest_size=16)
    found.update(content.data)
    return found.hexdigest()


def _is_ct(image: np.ndarray) -> bool:
    sample = image.ravel()[:: max(1, image.size // 100_000)]
    measured = sample[(sample > -1500) & (sample < 5000)]  # beyond is padding
    return measured.size > sample.size / 4 and looks_like_ct(measured)


def _problem_of_size(geometry: ScanGeometry) -> str | None:
    """What the header alone tells, before memory is taken."""
    extent = voxel_sizes(geometry.affine)[: len(geometry.size)] * geometry.size
    if extent.max() <= LARGEST:
        return None
    return (
        f"is {' x '.join(f'{value / 1000:.4g}' for value in extent)} metres large by its header; correct its voxel "
        "size or unit (pixdim, sform, xyzt_units)"
    )


def _further_problem(path: str, first: ScanGeometry) -> str | None:
    """What makes the file of a further channel unusable."""
    found = inspect_scan(path, constant=True)
    if found.problem:
        return f"has a further channel {path}, which {found.problem}"
    geometry = scan_geometry(path)
    if geometry.size != first.size or not same_place(geometry.affine, first.affine, first.size):
        return f"and its further channel {path} lie in different places: resample them to one grid"
    return None


def _problem(
    image: np.ndarray, geometry: ScanGeometry, spatial_dims: int, min_size: int, constant: bool, wanted: int
) -> str | None:
    size = geometry.size
    channels = int(np.prod(image.shape[len(size) :]))
    if channels != wanted:
        if wanted == 1:
            return f"holds {channels} volumes or colours; store one scan a file (nibabel.four_to_three)"
        return f"holds {channels} of {wanted} channels; store all in it, or a file each: case_0000, case_0001 and so on"
    if len(size) != spatial_dims or min(size) < min_size:
        shown = " x ".join(str(n) for n in image.shape)
        return f"is {shown} voxels; {spatial_dims} axes of {min_size} voxels or more are needed"
    if not np.isfinite(image).all():
        bad = np.count_nonzero(~np.isfinite(image))
        return f"has {bad} voxels that are NaN or infinite; store the value of the background there, in a CT -1000"
    if constant:
        return None
    if image.min() == image.max():
        return f"is constant (every voxel is {image.flat[0]:g}): it shows nothing"
    return _problem_of_range(image)


def _problem_of_range(image: np.ndarray) -> str | None:
    """What 32-bit floating point, in which networks compute, cannot hold."""
    low, high = float(image.min()), float(image.max())
    top = max(abs(low), abs(high))
    if top > float(np.finfo(np.float32).max):
        return f"has values up to {top:.3g}, more than 32-bit floating point holds; divide them, or correct scl_slope"
    few = high - low < STEPS * float(np.spacing(np.float32(top)))
    if few and not np.array_equal(image.astype(np.float32), image):
        return (
            f"has values from {low:.10g} to {high:.10g}, which 32-bit floating point hardly tells apart; subtract the "
            "lowest one"
        )
    return None


def is_text(path: str) -> bool:
    """Whether a path is UTF-8: others come from old disks and cannot be written into tables."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def scan_exists(path: str) -> bool:
    """Whether a path names a file, a folder, or a series in a folder of DICOM files."""
    return os.path.exists(path) or is_series(path)


def tell_sizes(checks: Mapping[str, ScanCheck]) -> None:
    """
    Say in one line which of three scans or more are of quite another size: a wrong voxel size or unit is not refused
    where the scan can be read with it.

    Args:
        checks: by path.
    """
    lengths = {path: float(np.multiply(check.size, check.spacing).max()) for path, check in checks.items()}
    usual = float(np.median(list(lengths.values()))) if len(lengths) > 2 else 0.0
    odd = [path for path, length in lengths.items() if usual and not usual / ODD < length < ODD * usual]
    if odd:
        print(
            f"sizes: {len(odd)} of {len(checks)} scans, as {odd[0]}, which is {lengths[odd[0]]:.4g} mm long by its "
            f"header, the median is {usual:.4g} mm; if that is wrong, correct its voxel size or unit",
            flush=True,
        )


def tell_decisions(checks: Mapping[str, ScanCheck]) -> None:
    """
    Say what had to be decided about the geometry of scans: one line a kind, with their number and one of them.

    Args:
        checks: by path.
    """
    kinds = dict.fromkeys(kind for check in checks.values() for kind in check.notes)
    for kind in kinds:
        paths = [path for path, check in checks.items() if kind in check.notes]
        print(
            f"{kind}: {len(paths)} of {len(checks)} scans, as {paths[0]}, which {checks[paths[0]].notes[kind]}",
            flush=True,
        )
