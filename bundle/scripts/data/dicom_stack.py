# SPDX-License-Identifier: Apache-2.0
"""
A DICOM series as a volume: its slices in the order of their positions, with the affine matrix of the standard.

That matrix (PS3.3 C.7.6.2.1.1) is sheared where the gantry was tilted. What makes no regular volume is refused by name.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from typing import Any

import itk
import numpy as np
from nibabel.affines import voxel_sizes

from .dicom_series import TOLD_APART_BY, Series, Slice
from .geometry import RAS_TO_LPS, ScanGeometry, UnusableScan, check_affine, distance, shear, straightened

STRAIGHT = 0.1
"""Voxels by which slices may lie off a straight, even stack and still be taken for one: more than rounding does."""


def _one(values: Sequence[Any], what: str) -> Any:
    """The value that all slices share."""
    counts = Counter(values)
    if len(counts) > 1:
        shown = " and ".join(str(count) for _, count in counts.most_common())
        raise UnusableScan(f"holds images of several {what} ({shown} images); keep each kind in a folder of its own")
    return next(iter(counts))


def stack(series: Series) -> tuple[ScanGeometry, list[Slice]]:
    """
    Where the slices of a series lie.

    Args:
        series: of :func:`find_series`.

    Returns:
        its geometry, and its slices in the order of their positions.

    Raises:
        UnusableScan: for what makes no regular volume.
    """
    slices = series.slices
    if series.unreadable:
        names = ", ".join(os.path.basename(path) for path in series.unreadable[:3])
        raise UnusableScan(f"lacks slices: {len(series.unreadable)} files cannot be read ({names}); copy them anew")
    if series.colours != 1:
        raise UnusableScan(f"holds colours ({series.colours} values a voxel); one grey value a voxel is needed")
    if series.inverted:
        raise UnusableScan(
            "is MONOCHROME1 (low values shown bright), whose values ITK turns around; set its "
            "PhotometricInterpretation to MONOCHROME2, which leaves the values"
        )
    if not all(np.isfinite([*each.position, *each.orientation, *each.pixel]).all() for each in slices):
        raise UnusableScan(
            "does not say where its slices lie (ImagePositionPatient, ImageOrientationPatient or PixelSpacing is "
            "missing); take the original series, as the scanner wrote it"
        )
    columns, rows = _one([each.size for each in slices], "sizes")
    pixel = _one([tuple(round(value, 4) for value in each.pixel) for each in slices], "pixel spacings")
    orientations = np.array([each.orientation for each in slices])
    _one([tuple(np.abs(each - orientations[0]) < 0.01) for each in orientations], "orientations")
    orientation = orientations.mean(axis=0)
    across, down = (axis / max(np.linalg.norm(axis), 1e-12) for axis in (orientation[:3], orientation[3:]))
    normal = np.cross(across, down)
    slices = sorted(slices, key=lambda each: float(each.position @ normal))
    positions = np.array([each.position for each in slices])
    _check_positions(slices, positions, normal)
    step = (positions[-1] - positions[0]) / (len(slices) - 1) if len(slices) > 1 else normal
    notes = {}
    off = np.linalg.norm(positions - positions[0] - np.arange(len(slices))[:, None] * step, axis=1).max()
    if off > 0.01 * np.linalg.norm(step):
        notes["uneven slices"] = f"has slices up to {off:.2f} mm off an even stack, read as even"
    lacking = _lacking(series, slices)
    if lacking:
        notes["perhaps incomplete"] = f"{lacking}; if slices are missing at an end, copy the series anew"
    affine = np.eye(4)
    affine[:3] = np.stack([across * pixel[1], down * pixel[0], step, positions[0]], axis=1)
    affine = RAS_TO_LPS @ affine
    check_affine(affine)
    size = (columns, rows, len(slices))
    straight = straightened(affine)
    if distance(affine, straight, size) <= STRAIGHT * voxel_sizes(affine).min():
        return ScanGeometry(straight, size, straight, notes=notes), slices
    notes["shear"] = (
        f"was acquired with a tilted gantry ({shear(affine):.1f} degrees), which is respected; ITK-based tools (3D "
        "Slicer) drop it or refuse results in its place: for them make a straight volume with dcm2niix (_Tilt)"
    )
    return ScanGeometry(affine, size, None, notes=notes), slices


def _lacking(series: Series, slices: Sequence[Slice]) -> str | None:
    """What the images say of others, which were first or last: positions alone cannot tell."""
    for name, count in series.announced.items():
        if count > len(slices):
            return f"has {len(slices)} images, and {name} says {count}"
    numbers = [each.told.get("InstanceNumber", "") for each in slices]
    if not all(number.isdigit() for number in numbers):
        return None
    ordered = [int(number) for number in numbers]
    first = min(ordered)
    steps = set(np.diff(ordered).tolist())
    if len(slices) > 1 and steps in ({1}, {-1}) and 1 < first <= len(slices):
        return f"has images numbered from {first} on (InstanceNumber)"
    return None


def _check_positions(slices: Sequence[Slice], positions: np.ndarray, normal: np.ndarray) -> None:
    """Refuse several images at one position, holes, and slices that lie at uneven distances or off a line."""
    if len(slices) < 2:
        return
    along = positions @ normal
    gaps = np.diff(along)
    usual = float(np.median(gaps[gaps > 1e-3])) if (gaps > 1e-3).any() else 1.0
    if (gaps < 0.05 * usual).any():
        raise UnusableScan(_repeated(slices, along, usual))
    step = (positions[-1] - positions[0]) / (len(slices) - 1)
    off = np.linalg.norm(positions - positions[0] - np.arange(len(slices))[:, None] * step, axis=1).max()
    if off <= STRAIGHT * float(step @ normal):
        return
    multiples = np.round(gaps / usual)
    if gaps.max() > 1.5 * usual and np.abs(gaps / usual - multiples).max() < 0.2:
        missing = int(multiples.sum()) - len(gaps)
        hole = along[int(gaps.argmax())]
        raise UnusableScan(
            f"lacks slices: {missing} are missing, {gaps.max():.4g} mm lie between two (at {hole:.4g} mm), "
            f"{usual:.4g} mm between others; copy the series anew"
        )
    if gaps.max() - gaps.min() > STRAIGHT * usual:
        raise UnusableScan(
            f"has slices {gaps.min():.4g} to {gaps.max():.4g} mm apart; dcm2niix makes an even volume of them (take "
            "the file with _Eq in its name)"
        )
    steps = np.diff(positions, axis=0)
    jump = int(np.linalg.norm(steps - np.median(steps, axis=0), axis=1).argmax()) + 1
    first, name = float(slices[jump].position @ normal), os.path.basename(slices[jump].path)
    raise UnusableScan(
        f"has slices that do not lie on one line (up to {off:.4g} mm off): put those from {first:.4g} mm on ({name} "
        "and further) into a folder of their own"
    )


def _repeated(slices: Sequence[Slice], along: np.ndarray, usual: float) -> str:
    """What is said of several images at one position, and how to tell them apart."""
    place = np.concatenate([[0], np.cumsum(np.diff(along) >= 0.05 * usual)])
    counts = np.bincount(place)
    said = f"has several images at one position ({counts.max()} at {(counts > 1).sum()} of {len(counts)} positions)"
    copies = Counter(each.told["SOPInstanceUID"] for each in slices)
    if any(count > 1 for count in copies.values()):
        twice = next(each for each in slices if copies[each.told["SOPInstanceUID"]] > 1)
        files = [os.path.basename(each.path) for each in slices if each.told == twice.told][:2]
        return f"{said}: files are there twice ({' and '.join(files)}); move one copy of each to another folder"
    for name in TOLD_APART_BY:
        values = Counter(each.told.get(name, "") for each in slices)
        pairs = {(int(p), each.told.get(name, "")) for p, each in zip(place, slices, strict=True)}
        if len(pairs) == len(slices) and 1 < len(values) < len(slices):
            shown = ", ".join(value.strip("[]")[:40] for value in sorted(values)[:4])
            return f"{said}, told apart by {name} ({shown}): put each of them into a folder of its own"
    return f"{said}: phases, echoes or copies; put each of them into a folder of its own"


def read_pixels(slices: Sequence[Slice]) -> np.ndarray:
    """
    The values of a series, with each image's own slope and intercept.

    Args:
        slices: of :func:`stack`, in order.

    Returns:
        ``(columns, rows, slices)``.

    Raises:
        UnusableScan: naming the files that cannot be read.
    """
    files = list(dict.fromkeys(each.path for each in slices))
    try:
        return _read(slices, files)
    except RuntimeError:
        bad = [os.path.basename(path) for path in files if not _readable(path)]
        shown = f"{len(bad)} files cannot be read ({', '.join(bad[:3])})"
        raise UnusableScan(f"lacks slices: {shown}; copy them anew") from None


def _readable(path: str) -> bool:
    try:
        itk.imread(path)
    except RuntimeError:
        return False
    return True


def _read(slices: Sequence[Slice], files: Sequence[str]) -> np.ndarray:
    uniform = len({each.scale for each in slices}) == 1
    if len(files) < len(slices):  # frames, in the order of the file
        frames = {path: itk.array_from_image(itk.imread(path)) for path in files}
        first = {each.path: each for each in slices if each.frame == 0}
        stacked = [frames[each.path].reshape(-1, *frames[each.path].shape[-2:])[each.frame] for each in slices]
        if not uniform:  # ITK applies the first frame's to all
            scales = [(first[each.path].scale, each.scale) for each in slices]
            stacked = [(x - old[1]) / old[0] * new[0] + new[1] for x, (old, new) in zip(stacked, scales, strict=True)]
        return np.stack(stacked).T
    image = itk.imread(list(files) if len(files) > 1 else files[0], **({} if uniform else {"pixel_type": itk.F}))
    array = itk.array_from_image(image)
    return array.reshape(-1, *array.shape[-2:]).T
