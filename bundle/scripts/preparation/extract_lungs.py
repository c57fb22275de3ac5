# SPDX-License-Identifier: Apache-2.0
"""Preparation of chest CT: the lungs are cut out of the scan, and what surrounds them becomes air."""

from __future__ import annotations

import math
from dataclasses import dataclass

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from scipy import ndimage

from ..errors import InputError, check_numbers
from .crop_to_label import crop_to

SEARCH_SPACING = 1.5
"""Millimetres: finer grids are searched by every second, third ... voxel."""

SMALLER_LUNG = 0.2
"""Volume, as a share of the larger one, that a lung separate from the other has at least."""

WINDPIPE = 0.02
"""Share of the largest axial cut of the lungs below which a cut shows the windpipe alone."""


def _largest(mask: np.ndarray) -> np.ndarray:
    """The largest connected component; all False for an empty mask."""
    parts, _ = ndimage.label(mask)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return (parts == sizes.argmax()) & mask


def air_in_body(hu: np.ndarray, axial: int, threshold: float, enclosed: bool = True) -> np.ndarray:
    """
    Lungs and airways: the one or two largest pieces of air inside the body.

    Args:
        hu: ``(D, H, W)``, Hounsfield units.
        axial: the axis that runs from feet to head.
        threshold: Hounsfield units between lung and soft tissue.
        enclosed: leave out air that is connected with the air around the patient, as between raised arms.

    Returns:
        mask ``(D, H, W)``; all False where there is no air inside.
    """
    # all that tissue encloses in an axial cut; the body is the largest solid of it, a hollow table another one
    solids = [ndimage.binary_fill_holes(cut) for cut in np.moveaxis(hu >= threshold, axial, 0)]
    solid = np.moveaxis(np.stack(solids), 0, axial)
    body = ndimage.binary_dilation(_largest(ndimage.binary_erosion(solid)), mask=solid)
    air = (hu < threshold) & body
    if enclosed:
        parts, _ = ndimage.label(hu < threshold)
        sides = [np.take(parts, end, axis) for axis in range(3) if axis != axial for end in (0, -1)]
        air &= ~np.isin(parts, np.unique(np.concatenate([side.ravel() for side in sides])))
    parts, _ = ndimage.label(air)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return np.isin(parts, np.flatnonzero(sizes >= max(1, SMALLER_LUNG * sizes.max())))


def close_gaps(mask: np.ndarray, spacing: np.ndarray, radius: float) -> np.ndarray:
    """
    Include vessels, nodules and dense spots that the lungs enclose or nearly so.

    Args:
        mask: ``(D, H, W)``, not empty.
        spacing: ``(3,)``, millimetres.
        radius: millimetres of the morphological closing.

    Returns:
        the mask, closed and without holes.
    """
    room = np.ceil(radius / spacing).astype(int) + 1
    box = tuple(
        slice(max(0, int(a.min()) - r), int(a.max()) + 1 + r) for a, r in zip(np.nonzero(mask), room, strict=True)
    )
    part = mask[box]
    wide = ndimage.distance_transform_edt(~part, sampling=spacing) <= radius
    closed = mask.copy()
    closed[box] |= ndimage.binary_fill_holes(part | (ndimage.distance_transform_edt(wide, sampling=spacing) > radius))
    return closed


@dataclass(frozen=True)
class ExtractLungs:
    """
    Step of :class:`~scripts.preparation.Preparation`: the box of the lungs, with everything outside of them set to air.

    The lungs are found by their density, so that dense disease at their surface may be cut off; the windpipe stays as
    far as it lies in the box.

    Args:
        threshold: Hounsfield units between lung and soft tissue.
        closing: millimetres by which gaps (vessels, dense spots) are closed.
        min_volume: millilitres of air below which a scan has no lungs.
        margin: millimetres around the box.
        air: Hounsfield units outside of the lungs.
    """

    threshold: float = -320.0
    closing: float = 8.0
    min_volume: float = 500.0
    margin: float = 10.0
    air: float = -1024.0

    def __post_init__(self) -> None:
        check_numbers({"threshold": self.threshold, "air": self.air}, lowest=-math.inf)
        check_numbers({"closing": self.closing, "min_volume": self.min_volume, "margin": self.margin})

    def mask(self, image: MetaTensor) -> np.ndarray:
        """
        Args:
            image: ``(1, D, H, W)``, Hounsfield units.

        Returns:
            mask ``(D, H, W)`` of the lungs, without the cuts that show the windpipe alone.

        Raises:
            InputError: for a scan without lungs.
        """
        affine = np.asarray(image.affine)
        axial = int(np.flatnonzero(nib.io_orientation(affine)[:, 0] == 2)[0])
        spacing = nib.affines.voxel_sizes(affine)
        steps = np.maximum(1, np.floor(SEARCH_SPACING / spacing + 1e-6)).astype(int)
        hu = np.asarray(image[0])[tuple(slice(None, None, step) for step in steps)]
        for enclosed in (True, False):  # where the windpipe opens to the air around, the lungs are not enclosed
            lungs = air_in_body(hu, axial, self.threshold, enclosed)
            volume = np.count_nonzero(lungs) * np.prod(spacing * steps) / 1000
            if volume >= max(self.min_volume, 1e-6):
                break
        else:
            raise InputError(
                f"shows no lungs: {volume:.0f} ml of air inside the body, {self.min_volume:g} or more are needed (are "
                "its values Hounsfield units?)"
            )
        lungs = close_gaps(lungs, spacing * steps, self.closing)
        area = lungs.sum(axis=tuple(axis for axis in range(3) if axis != axial))
        np.moveaxis(lungs, axial, 0)[area < WINDPIPE * area.max()] = False
        for axis, step in enumerate(steps):
            lungs = np.repeat(lungs, step, axis)
        return lungs[tuple(slice(0, size) for size in image.shape[1:])]

    def __call__(self, image: MetaTensor, label: MetaTensor | None) -> tuple[MetaTensor, MetaTensor | None]:
        """
        Args:
            image: ``(1, D, H, W)``, Hounsfield units.
            label: the same grid, or None.

        Returns:
            the box of the lungs; a label is cut to the same box.

        Raises:
            InputError: for a scan without lungs.
        """
        lungs = self.mask(image)
        masked = image.clone()
        masked[:, torch.as_tensor(~lungs)] = self.air
        boxes = crop_to(lungs, self.margin, *([masked] if label is None else [masked, label]))
        return boxes[0], boxes[1] if label is not None else None
