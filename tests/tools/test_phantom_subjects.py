# SPDX-License-Identifier: Apache-2.0

"""Phantoms: their anatomy, their honest geometry, how they are scanned and deformed."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine
from phantoms.anatomy import structures
from phantoms.appearance import draw_appearance, grid_affine
from phantoms.deformation import LOW, STEP, exponential, nodes, random_deformation
from phantoms.heart import LABELS
from phantoms.points import Points
from phantoms.subject import ANATOMY, APPEARANCE, make_subject, stream
from scipy.ndimage import map_coordinates
from support import PHANTOM_CODES as CODES

SPACING = 7.0
ORIENTATIONS = ("RAS", "LPS", "PSR", "IAL", "SRP")


def appearance_of(index: int, **changes: Any) -> Any:
    """The appearance of a subject of seed 0, changed."""
    return dataclasses.replace(draw_appearance(stream(0, index, APPEARANCE), SPACING), **changes)


@cache
def subject(index: int, axcodes: str = "LPS") -> tuple[nib.Nifti1Image, nib.Nifti1Image]:
    """A subject of seed 0, without noise, stored along ``axcodes``."""
    return make_subject(0, index, SPACING, appearance_of(index, axcodes=axcodes, noise=(0.0, 0.5)))


def world_centre(image: nib.Nifti1Image, mask: np.ndarray) -> np.ndarray:
    """The centre of a mask in world coordinates, mm."""
    return apply_affine(image.affine, np.argwhere(mask)).mean(0)


def centres(labels: nib.Nifti1Image) -> dict[str, np.ndarray]:
    """The centres of the labelled structures in world coordinates, mm."""
    values = np.asarray(labels.dataobj)
    return {name: world_centre(labels, values == code) for name, code in CODES.items()}


@pytest.mark.parametrize("spacing", [3.0, 12.0])
def test_every_subject_has_all_labels(spacing: float) -> None:
    indices = range(1) if spacing < 4 else range(8)
    for index in indices:
        image, labels = make_subject(1, index, spacing)
        assert set(np.unique(labels.dataobj)) == {0, *CODES.values()} == {0, *LABELS}
        assert image.shape == labels.shape
        assert np.array_equal(image.affine, labels.affine)
        assert image.get_data_dtype() == np.int16
        assert labels.get_data_dtype() == np.uint16


@pytest.mark.parametrize("index", [0, 1, 2])
@pytest.mark.parametrize("axcodes", ORIENTATIONS)
def test_heart_lies_as_in_man_in_world_coordinates(index: int, axcodes: str) -> None:
    image, labels = subject(index, axcodes)
    assert "".join(nib.aff2axcodes(image.affine)) == axcodes
    at, body = centres(labels), world_centre(image, np.asarray(image.dataobj) > -300)
    values = np.asarray(labels.dataobj)
    heart = world_centre(labels, np.isin(values, [CODES[name] for name in ("LV", "RV", "LA", "RA", "Myo")]))
    right, front, up = range(3)
    assert heart[right] < body[right] - 3
    assert at["LV"][right] < at["RV"][right] - 5
    assert at["LV"][right] < at["RA"][right] - 30
    assert at["LA"][front] < at["LV"][front] - 10
    assert at["RV"][front] > at["LV"][front]
    assert at["PA"][up] > at["LA"][up] + 15
    axis = apply_affine(labels.affine, np.argwhere(values == CODES["LV"]))
    apex = axis[np.argmax(np.linalg.norm(axis - at["LA"], axis=1))]
    assert (np.sign(apex - at["LA"]) == (-1, 1, -1)).all(), "the apex points left, to the front and down"


@pytest.mark.parametrize("index", [0, 1, 2])
def test_lungs_are_air_and_the_spine_is_behind(index: int) -> None:
    image, labels = subject(index)
    hu, at = np.asarray(image.dataobj), centres(labels)
    world = apply_affine(image.affine, np.moveaxis(np.indices(hu.shape), 0, -1))
    canonical = Points(random_deformation(stream(0, index, ANATOMY))(world.reshape(-1, 3).T))
    inside = {s.name: (s.shape(canonical) < -4).reshape(hu.shape) for s in structures() if s.name in ("lungs", "skin")}
    heart_level = np.abs(world[..., 2] - at["LV"][2]) < 15
    for side in (-1, 1):
        lung = inside["lungs"] & ((world[..., 0] - at["LA"][0]) * side > 45)
        assert lung.sum() > 500
        assert -950 < np.median(hu[lung]) < -700
    bones = heart_level & (hu > 200) & (np.abs(world[..., 0] - at["LA"][0]) < 25) & (world[..., 1] < at["LA"][1] - 22)
    assert bones.any()
    assert world_centre(image, bones)[1] < min(at[name][1] for name in ("LV", "RV", "LA", "RA")) - 25
    assert np.median(hu[~inside["skin"] & (hu < -900)]) < -970, "air around the body"


def test_hounsfield_units_stay_in_range() -> None:
    for index in range(6):
        image, labels = make_subject(2, index, 8.0)
        hu, values = np.asarray(image.dataobj), np.asarray(labels.dataobj)
        assert hu.min() >= -1024
        assert 150 < np.percentile(hu, 99.5) < 1500
        assert 0.15 < (hu < -600).mean() < 0.8
        assert 20 < np.median(hu[values == CODES["Myo"]]) < 250
        assert 20 < np.median(hu[values == CODES["LV"]]) < 480


@pytest.mark.parametrize("axcodes", ORIENTATIONS)
def test_storage_orientation_keeps_the_world(axcodes: str) -> None:
    for stored, reference in zip(subject(0, axcodes), subject(0, "RAS"), strict=True):
        back = nib.as_closest_canonical(stored)
        assert np.allclose(back.affine, reference.affine)
        assert np.array_equal(np.asarray(back.dataobj), np.asarray(reference.dataobj))
        assert np.allclose(stored.get_qform(), stored.affine, atol=1e-4)
        assert stored.header["sform_code"] == stored.header["qform_code"] == 1


def test_affine_is_of_the_grid_that_was_evaluated() -> None:
    """Two scans of one anatomy, with other voxels elsewhere, put its structures at the same place."""
    moved = appearance_of(3, spacing=(5.0, 5.0, 7.5), shape=(62, 50, 38), centre=(6.0, -5.0, 4.0), axcodes="PIR")
    one, other = centres(subject(3)[1]), centres(make_subject(0, 3, SPACING, moved)[1])
    for name in ("LV", "RV", "LA", "RA", "Myo", "PA"):
        assert np.linalg.norm(one[name] - other[name]) < 1.5, name
    spacing = nib.affines.voxel_sizes(grid_affine(moved))
    assert np.allclose(spacing, (5.0, 5.0, 7.5))


def test_anatomy_does_not_depend_on_appearance() -> None:
    """Subjects are scanned in each other's manner: the labels are the anatomy's alone."""
    grid = {"spacing": (SPACING,) * 3, "shape": (50, 40, 44), "centre": (0.0, 0.0, 0.0), "axcodes": "RAS"}
    own, borrowed = (make_subject(0, 1, SPACING, appearance_of(index, **grid)) for index in (1, 2))
    assert np.array_equal(np.asarray(own[1].dataobj), np.asarray(borrowed[1].dataobj))
    assert not np.array_equal(np.asarray(own[0].dataobj), np.asarray(borrowed[0].dataobj))
    other = make_subject(0, 2, SPACING, appearance_of(2, **grid))
    assert not np.array_equal(np.asarray(other[1].dataobj), np.asarray(borrowed[1].dataobj))


def test_appearance_varies() -> None:
    draws = [draw_appearance(stream(0, index, APPEARANCE), 3.0) for index in range(30)]
    assert len({draw.axcodes for draw in draws}) > 10
    assert all(len({*draw.axcodes} & {*pair}) == 1 for draw in draws for pair in ("RL", "AP", "SI"))
    assert all(2.5 < draw.spacing[0] < 3.5 and 2.3 < draw.spacing[2] < 4.6 for draw in draws)
    contrast = [draw.hounsfield["LV"] - draw.hounsfield["RV"] for draw in draws]
    assert min(contrast) < -50
    assert max(contrast) > 50


def test_deformation_is_a_diffeomorphism() -> None:
    for index in range(6):
        phi = random_deformation(stream(3, index, ANATOMY))
        image = nodes() + phi.field
        jacobian = np.stack([np.stack(np.gradient(component, STEP)) for component in image])
        determinant = np.linalg.det(np.moveaxis(jacobian, (0, 1), (-2, -1))) * np.linalg.det(phi.matrix)
        assert determinant.min() > 0.2
        assert determinant.max() < 4
        body = np.linalg.norm(nodes() / np.reshape([130, 100, 120], (3, 1, 1, 1)), axis=0) < 1
        moves = np.linalg.norm(phi.field, axis=0)[body]
        assert 3 < np.percentile(moves, 90) < 18


def test_exponential_of_a_constant_velocity_is_a_shift() -> None:
    velocity = np.full(nodes().shape, 5, np.float32)
    assert np.allclose(exponential(velocity), 5, atol=1e-3)


def test_exponential_of_the_opposite_velocity_is_the_inverse() -> None:
    x = nodes()
    velocity = np.stack([9 * np.sin(c / 40) for c in x[[1, 2, 0]]]).astype(np.float32)
    forth, back = exponential(velocity), exponential(-velocity)
    inner = (slice(None), *[slice(5, -5)] * 3)
    there = (x + forth - LOW.reshape(3, 1, 1, 1)) / STEP
    again = x + forth + np.stack([map_coordinates(c, there, order=1, mode="nearest") for c in back])
    assert np.abs(again - x)[inner].max() < 0.7
