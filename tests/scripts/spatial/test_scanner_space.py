# SPDX-License-Identifier: Apache-2.0

"""Matches in scanner space, against SimpleITK and against plain algebra."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scripts.spatial import (
    WorldMatch,
    affine_about_centre,
    homogeneous,
    linear_matrix,
    resample,
    sample,
    scanner_jacobian_determinant,
    transform_points,
    voxel_grid,
)


def random_affine(seed: int) -> torch.Tensor:
    """A 4x4 voxel-to-millimetre matrix with rotation, flips, anisotropic spacing and an origin."""
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    matrix = np.eye(4)
    matrix[:3, :3] = q * rng.uniform(0.8, 3, 3)
    matrix[:3, 3] = rng.uniform(-80, 80, 3)
    return torch.as_tensor(matrix)


@pytest.fixture
def match() -> WorldMatch:
    torch.manual_seed(0)
    linear = linear_matrix(torch.tensor([[0.2, -0.1, 0.15]]), torch.tensor([[1.1, 0.9, 1.05]]), torch.zeros(1, 6))
    affine = affine_about_centre(linear, torch.tensor([[1.0, -2.0, 0.5]]), (10, 12, 8))[0]
    return WorldMatch(affine, torch.randn(3, 10, 12, 8), random_affine(1), random_affine(2))


def test_map_is_moving_affine_after_local_displacement(match):
    """phi(F v) = M A(v + u(v)) at a prepared voxel v."""
    v = torch.tensor([3.0, 7.0, 2.0], dtype=torch.float64)
    found = match((match.fixed_affine @ torch.cat([v, torch.ones(1)]))[:3, None])[:, 0]
    moved = v + match.local_displacement[:, 3, 7, 2].double()
    aligned = match.affine.double() @ torch.cat([moved, torch.ones(1)])
    expected = (match.moving_affine @ torch.cat([aligned, torch.ones(1)]))[:3]
    assert torch.allclose(found, expected, atol=1e-4)


def test_matrix_is_the_map_without_local_displacement(match):
    match.local_displacement.zero_()
    points = torch.rand(3, 5, dtype=torch.float64) * 20
    assert torch.allclose(match(points), transform_points(match.matrix(), points), atol=1e-3)


def test_displacement_of_a_grid_is_the_map_minus_the_point(match):
    grid_affine, size = random_affine(3), (5, 6, 7)
    points = transform_points(grid_affine, voxel_grid(size, torch.zeros(1)))
    expected = match(points.double()) - points
    assert torch.allclose(match.displacement(grid_affine, size).double(), expected, atol=1e-2)


def test_resampling_without_displacement_is_a_change_of_grid():
    image, affine = torch.rand(1, 6, 7, 5), random_affine(4)
    assert torch.allclose(resample(image, affine, torch.zeros(3, 6, 7, 5), affine), image, atol=1e-3)
    half = affine.clone().double() @ torch.diag(torch.tensor([0.5, 0.5, 0.5, 1], dtype=torch.float64))
    finer = resample(image, affine, torch.zeros(3, 11, 13, 9), half)
    assert torch.allclose(finer[:, ::2, ::2, ::2], image, atol=1e-3)


def test_scanner_jacobian_determinant_of_a_world_affine_map(match):
    """An affine map has its own determinant everywhere, on a rotated anisotropic grid too."""
    matrix = match.matrix()
    grid_affine, size = random_affine(5), (6, 5, 7)
    points = transform_points(grid_affine, voxel_grid(size, torch.zeros(1, dtype=torch.float64)))
    displacement = transform_points(matrix, points) - points
    determinant = scanner_jacobian_determinant(displacement, grid_affine)
    assert torch.allclose(determinant, torch.linalg.det(matrix[:3, :3]), atol=1e-6)


def test_single_slice_grid():
    displacement = torch.zeros(3, 4, 5, 1)
    assert torch.allclose(scanner_jacobian_determinant(displacement, torch.eye(4)), torch.ones(4, 5, 1))


def test_homogeneous_completes_the_matrix():
    assert torch.equal(homogeneous(torch.eye(4)[:3]), torch.eye(4))


def test_simpleitk_warps_alike(tmp_path, match):
    """The written displacement field, read as a SimpleITK displacement field transform, gives our warped image."""
    sitk = pytest.importorskip("SimpleITK")
    import nibabel as nib
    from scripts.data import write_displacement, write_nifti

    match.local_displacement = 0.7 * match.local_displacement
    fixed_grid, moving_grid = random_affine(6), random_affine(7)
    centre = match(transform_points(match.fixed_affine, torch.full((3, 1), 5.0)))[:, 0]
    fixed_centre = transform_points(match.fixed_affine, torch.full((3, 1), 5.0))[:, 0]
    for grid, middle, size in ((fixed_grid, fixed_centre, (9, 11, 10)), (moving_grid, centre, (14, 12, 13))):
        half = (torch.tensor(size, dtype=torch.float64) - 1) / 2
        grid[:3, 3] = middle.double() - grid[:3, :3] @ half
    moving = torch.rand(1, 14, 12, 13)
    displacement = match.displacement(fixed_grid, (9, 11, 10))
    ours = resample(moving, moving_grid, displacement, fixed_grid)[0].numpy()
    write_displacement(displacement.numpy(), fixed_grid.numpy(), tmp_path / "field.nii.gz")
    write_nifti(moving[0].numpy(), moving_grid.numpy(), tmp_path / "moving.nii.gz")
    write_nifti(ours, fixed_grid.numpy(), tmp_path / "warped.nii.gz")
    field = sitk.ReadImage(str(tmp_path / "field.nii.gz"), sitk.sitkVectorFloat64)
    reference = sitk.ReadImage(str(tmp_path / "warped.nii.gz"), sitk.sitkFloat32)
    image = sitk.ReadImage(str(tmp_path / "moving.nii.gz"), sitk.sitkFloat32)
    transform = sitk.DisplacementFieldTransform(field)
    theirs = sitk.GetArrayFromImage(sitk.Resample(image, reference, transform, sitk.sitkLinear, -1.0)).transpose(
        2, 1, 0
    )
    points = transform_points(fixed_grid, voxel_grid((9, 11, 10), displacement)) + displacement
    position = transform_points(torch.linalg.inv(moving_grid), points)
    last = torch.tensor([13.0, 11.0, 12.0]).reshape(3, 1, 1, 1)
    inside = ((position > 0.01) & (position < last - 0.01)).all(dim=0).numpy()  # the border is a matter of taste
    assert inside.mean() > 0.2
    assert np.abs(theirs - ours)[inside].max() < 2e-3
    assert nib.load(tmp_path / "field.nii.gz").shape == (9, 11, 10, 1, 3)


def test_sampling_outside_is_zero_or_the_border():
    image = torch.ones(1, 1, 4, 4, 4)
    far = torch.full((1, 3, 1, 1, 1), 50.0)
    assert sample(image, far).item() == 0
    assert sample(image, far, padding_mode="border").item() == 1
