# SPDX-License-Identifier: Apache-2.0

"""A subject: its anatomy, as a scan shows it, and its labels, as NIfTI images."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.orientations import axcodes2ornt, ornt_transform

from .anatomy import paint
from .appearance import Appearance, draw_appearance, grid_affine, materials, scan
from .deformation import random_deformation
from .points import Points

ANATOMY, APPEARANCE, NOISE = range(3)
"""The independent random streams of a subject."""


def stream(seed: int, index: int, name: int) -> np.random.Generator:
    """One of the random streams of subject ``index``, whatever else is drawn elsewhere."""
    return np.random.default_rng([seed, index, name])


def _stored(values: npt.NDArray[np.generic], affine: npt.NDArray[np.float64], axcodes: str) -> nib.Nifti1Image:
    """Make a NIfTI image of an array along R, A, S, its axes stored as ``axcodes`` says."""
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(axcodes))
    image = nib.Nifti1Image(values, affine).as_reoriented(turn)
    image.set_sform(image.affine, code="scanner")
    image.set_qform(image.affine, code="scanner")
    image.header.set_xyzt_units("mm")
    return image


def make_subject(
    seed: int, index: int, spacing: float, appearance: Appearance | None = None
) -> tuple[nib.Nifti1Image, nib.Nifti1Image]:
    """Make one subject.

    Args:
        seed: the cohort's seed.
        index: the subject's number in the cohort.
        spacing: nominal voxel size, mm.
        appearance: how to scan it; drawn from ``seed`` and ``index`` by default.

    Returns:
        The scan in HU (int16) and the MM-WHS labels (uint16), of the same shape and affine.
    """
    phi = random_deformation(stream(seed, index, ANATOMY))
    look = appearance or draw_appearance(stream(seed, index, APPEARANCE), spacing)
    noise = stream(seed, index, NOISE)

    affine = grid_affine(look)
    world = np.stack(np.meshgrid(*(affine[i, i] * np.arange(n) + affine[i, 3] for i, n in enumerate(look.shape)),
                                 indexing="ij")).reshape(3, -1)  # fmt: skip
    softness = float(np.prod(look.spacing) ** (1 / 3))
    image, labels = paint(Points(phi(world)), materials(noise, look), softness)
    values = scan(noise, image.reshape(look.shape), look)
    return _stored(values, affine, look.axcodes), _stored(labels.reshape(look.shape), affine, look.axcodes)
