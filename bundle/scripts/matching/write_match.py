# SPDX-License-Identifier: Apache-2.0
"""What a match writes: files in the fixed scan's own geometry that other tools read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.labels import label_type
from ..data.writing import geometry_of, write_displacement, write_nifti
from ..errors import InputError
from ..spatial.displacement import inside_volume
from ..spatial.label_sampling import resample_labels
from ..spatial.scanner_space import WorldMatch, resample, sampling_positions, scanner_jacobian_determinant
from ..spatial.warp import sample
from .match_table import Trusted, add_row, measure, point_out, scan_path
from .points import carry_points

OUTPUTS = ("warped", "label", "probabilities", "displacement", "affine", "jacobian")


def label_probabilities(label: torch.Tensor, codes: torch.Tensor, *where: Any) -> torch.Tensor:
    """
    Each code's share at the sampled positions: a one-hot label map interpolated linearly.

    Args:
        label: ``(1, D, H, W)``, whole numbers.
        codes: ``(K,)``, the codes asked for.
        where: arguments of :func:`~scripts.spatial.sampling_positions`.

    Returns:
        ``(K, *size)``, within 0..1.
    """
    position = sampling_positions(*where)[None]
    return torch.cat([sample((label == code).float()[None], position)[0] for code in codes])


class WriteMatch:
    """
    Postprocessing step of the matching evaluator: writes each pair to ``<output_dir>/<moving>_to_<fixed>/``, its
    ``result``.

    ``warped.nii.gz`` the moving scan, its lowest value where it does not reach; ``warped_label.nii.gz`` its label map
    where it has one, see :func:`~scripts.spatial.sample_labels`; ``probabilities.nii.gz`` one volume a label code, the
    codes in ``probabilities.txt``; ``displacement.nii.gz`` see :func:`~scripts.data.write_displacement`; ``affine.txt``
    the affine part, 4x4, millimetres RAS, fixed to moving space; ``jacobian.nii.gz`` the determinant map. All in the
    fixed scan's own grid and geometry. ``matches.csv`` of the folder says of each pair how far its match can be
    trusted, see :func:`~scripts.matching.match_table.measure`; a match that a person should look at is named on the
    screen too. Landmarks of a pair are carried along, see :func:`~scripts.matching.points.carry_points`.

    Args:
        output_dir: where to.
        outputs: which of ``warped``, ``label``, ``probabilities``, ``displacement``, ``affine``, ``jacobian``.
        trusted: see :func:`~scripts.matching.match_table.look_at`.
    """

    def __init__(self, output_dir: str, outputs: Sequence[str] = OUTPUTS, trusted: Trusted | None = None) -> None:
        unknown = [name for name in outputs if name not in OUTPUTS]
        if unknown:
            raise InputError(f"outputs has no '{unknown[0]}', only {', '.join(OUTPUTS)}")
        self.output_dir, self.outputs, self.trusted = Path(output_dir), set(outputs), trusted

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """
        Args:
            data: a batch of one pair: ``image``, ``moving`` prepared ``(1, 1, D, H, W)``, their originals
                ``original_image``, ``original_moving`` (and ``original_label``) with their affines, ``pred``, and the
                name of its ``result``, see :func:`~scripts.matching.list_pairs`.

        Returns:
            the same with ``folder``, what was written to, added.
        """
        match = world_match(data)
        fixed, moving = data["original_image"], data["original_moving"]
        grid, size = fixed.affine[0], fixed.shape[2:]
        displacement = match.displacement(grid, size)
        folder = self.output_dir / data["result"][0]
        folder.mkdir(parents=True, exist_ok=True)
        affine, like = grid.double().numpy(), geometry_of(fixed)
        if "warped" in self.outputs:
            image = plain(moving)[:1]
            lowest = image.min()  # where the moving scan has nothing: 0 would be water in a CT
            warped = lowest + resample(image - lowest, moving.affine[0], displacement, grid)[0]
            write_nifti(warped.numpy(), affine, folder / "warped.nii.gz", like)
        if "displacement" in self.outputs:
            where_to = (folder / "displacement.nii.gz", like, geometry_of(moving))
            write_displacement(displacement.numpy(), affine, *where_to)
        if "affine" in self.outputs:
            np.savetxt(folder / "affine.txt", match.matrix().numpy(), fmt="%.8f")
        if "jacobian" in self.outputs:
            determinant = scanner_jacobian_determinant(displacement, grid)
            write_nifti(determinant.numpy(), affine, folder / "jacobian.nii.gz", like)
        if "original_label" in data:
            label = data["original_label"]
            where = (label.affine[0], displacement, grid)
            if "label" in self.outputs:
                codes = resample_labels(label_codes(label), *where)[0]
                write_nifti(codes.numpy().astype(label_type(codes)), affine, folder / "warped_label.nii.gz", like)
            if "probabilities" in self.outputs:
                codes = torch.unique(label_codes(label))
                shares = label_probabilities(label_codes(label), codes, *where)
                write_nifti(np.moveaxis(shares.numpy(), 0, -1), affine, folder / "probabilities.nii.gz", like)
                np.savetxt(folder / "probabilities.txt", codes.numpy(), fmt="%d")
        row = measure(data, self.trusted)
        add_row(self.output_dir, data["result"][0], row | carry_points(data, match, folder))
        point_out(f"{scan_path(data['moving'])} matched to {scan_path(data['image'])}", row)
        return {**data, "folder": str(folder)}


def only(batch: torch.Tensor) -> torch.Tensor:
    """
    What a batch of one holds, without meta data, on the CPU: ``(C, D, H, W)`` of ``(1, C, D, H, W)``.

    Raises:
        InputError: for a batch of several, of which the others would be lost.
    """
    if len(batch) != 1:
        raise InputError(f"results are written one by one, not {len(batch)} a batch: leave --dataloader#batch_size out")
    return torch.as_tensor(batch[0]).detach().cpu()


def plain(image: torch.Tensor) -> torch.Tensor:
    """The image of a batch of one: ``(C, D, H, W)``, float32."""
    return only(image).float()


def label_codes(label: torch.Tensor) -> torch.Tensor:
    """The label map of a batch of one: ``(1, D, H, W)``, int64."""
    return only(label).double().round().long()


def world_match(data: dict[str, Any], must_overlap: bool = True) -> WorldMatch:
    """
    The match of a batch of one pair in scanner space.

    Args:
        data: see :class:`WriteMatch`.
        must_overlap: whether to refuse a moving scan that lies outside the fixed one's field of view after matching.

    Raises:
        InputError: for such a scan.
    """
    pred = {name: torch.as_tensor(value).detach().cpu() for name, value in data["pred"].items() if name != "backward"}
    fixed, moving = (data[key] for key in ("image", "moving"))
    only(pred["displacement"])
    if must_overlap and not inside_volume(pred["displacement"]).any():
        raise InputError(f"{scan_path(moving)} does not overlap {scan_path(fixed)} after matching")
    fixed_affine, moving_affine = (image.affine[0].cpu() for image in (fixed, moving))
    if "finer_affine" not in pred:
        return WorldMatch(pred["affine"][0], pred["local_displacement"][0], fixed_affine, moving_affine)
    to_prepared = pred["finer_to_prepared"].to(fixed_affine)
    grids = fixed_affine @ to_prepared, moving_affine @ to_prepared
    return WorldMatch(pred["finer_affine"][0], pred["finer_local_displacement"][0], *grids)
