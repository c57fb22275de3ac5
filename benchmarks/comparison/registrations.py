# SPDX-License-Identifier: Apache-2.0

"""Classical registrations: greedy and ANTs, on one thread, by their own packages."""

from __future__ import annotations

from typing import Any

import nibabel as nib
import numpy as np
import torch

from .bundle_match import Pair
from .scoring import on_own_grid

LPS = np.array([-1.0, -1.0, 1.0])
"""Signs from RAS to the axes of ITK, and back."""
AFFINE = "-a -dof 12 -ia-image-centers -m NCC 2x2x2 -n 100x50x10"
DEFORMABLE = "-m NCC 2x2x2 -n 100x50x10"


def images(pair: Pair, grid: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Fixed and moving image ``(D, H, W)``, and their affine matrices in millimetres RAS, on the grid asked for."""
    if grid == "own":
        return [(scan.image[0].numpy(), scan.affine.numpy()) for scan in pair.scans]
    prepared = [pair.batch[key] for key in ("image", "moving")]
    return [(torch.as_tensor(one)[0, 0].numpy(), one.affine[0].double().numpy()) for one in prepared]


def place(affine: np.ndarray) -> tuple[list[float], list[float], np.ndarray]:
    """Origin, spacing and direction ``(3, 3)`` as ITK has them."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    return (affine[:3, 3] * LPS).tolist(), spacing.tolist(), LPS[:, None] * affine[:3, :3] / spacing


def to_field(vectors: np.ndarray, affine: np.ndarray, matrix: np.ndarray | None, pair: Pair, grid: str) -> torch.Tensor:
    """Vectors ``(3, D, H, W)`` in millimetres LPS as a field at the fixed scan's own voxels, in RAS."""
    field = torch.from_numpy(np.ascontiguousarray(vectors * LPS[:, None, None, None]))
    if grid == "own":
        return field
    affine_part = torch.eye(4) if matrix is None else torch.from_numpy(matrix)
    return on_own_grid(field, torch.from_numpy(affine), affine_part, pair.fixed)


def greedy(pair: Pair, grid: str, deformable: str | None = DEFORMABLE) -> torch.Tensor:
    """
    Greedy (``picsl_greedy``): affine from the image centres, then deformable.

    Args:
        pair: to match.
        grid: see :func:`images`.
        deformable: metric and steps of the deformable part; None for the affine part alone.
    """
    import SimpleITK as sitk
    from picsl_greedy import Greedy3D

    given = {}
    (_, affine), *_ = both = images(pair, grid)
    for name, (array, place_of) in zip(("fixed", "moving"), both, strict=True):
        given[name] = sitk.GetImageFromArray(array.T)
        origin, spacing, direction = place(place_of)
        given[name].SetOrigin(origin)
        given[name].SetSpacing(spacing)
        given[name].SetDirection(direction.flatten().tolist())
    tool, quiet = Greedy3D(), "-threads 1 -V 0"
    tool.execute(f"-i fixed moving {AFFINE} -o affine {quiet}", affine=None, **given)
    matrix, chain = np.array(tool["affine"], dtype=float), "affine"
    if deformable is not None:
        tool.execute(f"-i fixed moving -it affine {deformable} -o warp {quiet}", warp=None)
        chain = "warp affine"
    tool.execute(f"-rf fixed -r {chain} -rc whole {quiet}", whole=None)
    vectors = sitk.GetArrayFromImage(tool["whole"])  # (z, y, x, 3)
    return to_field(np.moveaxis(vectors, -1, 0).transpose(0, 3, 2, 1), affine, matrix, pair, grid)


def ants_syn(pair: Pair, grid: str) -> torch.Tensor:
    """
    ANTs (``antspyx``): ``type_of_transform="SyN"`` with all its defaults.

    Args:
        pair: to match.
        grid: see :func:`images`.
    """
    import tempfile

    import ants

    (_, affine), *_ = both = images(pair, grid)
    given: list[Any] = []
    for array, place_of in both:
        origin, spacing, direction = place(place_of)
        given.append(ants.from_numpy(array - array.min(), origin, spacing, direction))  # it begins at centres of mass
    with tempfile.TemporaryDirectory() as folder:
        found = ants.registration(*given, type_of_transform="SyN", outprefix=f"{folder}/", random_seed=0)
        whole = ants.apply_transforms(*given, transformlist=found["fwdtransforms"], compose=f"{folder}/whole_")
        vectors = np.asarray(nib.nifti1.load(whole).dataobj)[:, :, :, 0]
    return to_field(np.moveaxis(vectors, -1, 0), affine, None, pair, grid)
