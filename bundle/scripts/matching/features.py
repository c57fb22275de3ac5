# SPDX-License-Identifier: Apache-2.0
"""The features themselves: written to files, and used to find one place of a scan in another."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.dry_run import show_and_leave
from ..data.result_names import record_results, result_names
from ..data.writing import geometry_of, write_nifti
from ..errors import InputError, check_flags
from ..files import write_text
from ..networks.gvsl import GVSL
from ..spatial.scanner_space import transform_points
from ..spatial.warp import sample, voxel_grid
from .named_scans import look_up
from .write_match import plain, world_match


def list_scans(
    dataset_dir: str,
    output_dir: str | None = None,
    dry_run: bool = False,
    label_maps: bool = False,
    kind: str | None = None,
    skip_bad: bool = False,
    layout: Mapping[str, Any] | None = None,
) -> list[dict[str, str]]:
    """
    Every scan of a folder.

    Args:
        dataset_dir: the folder, a scan, a pattern or a list of these.
        output_dir: where results go; None only lists.
        dry_run: print what would be used, and end the program.
        label_maps: take label maps for scans too.
        kind: of the scans in a folder, see :func:`~scripts.data.find_scans`.
        skip_bad: leave scans that cannot be used out instead of refusing.
        layout: of a folder, see :mod:`scripts.data.folder_layouts`.

    Returns:
        dictionaries with ``image`` and the name of its ``result``.

    Raises:
        InputError: for a scan that cannot be used; where a result would be overwritten, see
            :func:`~scripts.data.record_results`.
    """
    check_flags({"skip_bad": skip_bad})
    found = look_up(dataset_dir, label_maps, kind, skip_bad, layout)
    found = found.usable([scan["image"] for scan in found.scans], skip_bad)
    names = result_names([scan["image"] for scan in found.scans])
    if dry_run:
        show_and_leave([found], {name: [path] for path, name in names.items()})
    if output_dir is not None:
        record_results(output_dir, {name: [path] for path, name in names.items()})
    return [{"image": path, "result": name} for path, name in names.items()]


class WriteFeatures:
    """
    Postprocessing step: writes ``<scan>_global.npy``, f^g averaged over the volume, ``(Cg,)``, and
    ``<scan>_local.nii.gz``, f^l on the prepared grid with its true affine, ``(D, H, W, Cl)``.

    Args:
        output_dir: where to.
    """

    def __init__(self, output_dir: str) -> None:
        self.output_dir = Path(output_dir)

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """
        Args:
            data: a batch of one scan: ``image`` prepared, ``pred`` the backbone's f^g ``(1, Cg, d, h, w)`` and f^l
                ``(1, Cl, D, H, W)``, and the name of its ``result``.

        Returns:
            the same.
        """
        image = data["image"]
        global_features, local_features = (plain(features) for features in data["pred"])
        name = data["result"][0]
        self.output_dir.mkdir(parents=True, exist_ok=True)
        np.save(self.output_dir / f"{name}_global.npy", global_features.flatten(1).mean(dim=1).numpy())
        maps = np.moveaxis(local_features.numpy(), 0, -1)
        affine = image.affine[0].double().numpy()
        write_nifti(maps, affine, self.output_dir / f"{name}_local.nii.gz", geometry_of(image))
        return data


def similarity_map(feature: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """
    Cosine similarity of one feature with a map of them, after taking the map's mean off both: without that all features
    of one network look alike.

    Args:
        feature: ``(C,)``.
        features: ``(C, D, H, W)``.

    Returns:
        ``(D, H, W)``, -1..1.
    """
    mean = features.flatten(1).mean(dim=1)
    centred = features - mean.reshape(-1, *[1] * (features.dim() - 1))
    return torch.cosine_similarity(centred, (feature - mean).reshape(-1, *[1] * (features.dim() - 1)), dim=0)


class Correspond:
    """
    Postprocessing step of the matching evaluator: where in the moving scan is this voxel of the fixed scan?

    Writes to ``<output_dir>/<moving>_to_<fixed>/``: ``correspondence.json``, the place by the match alone, and the best
    one by f^l within ``radius`` of it, each as a voxel of the moving scan and in millimetres (RAS); and
    ``similarity.nii.gz``, the similarity of f^l everywhere in the moving scan's own geometry.

    Args:
        output_dir: where to.
        network: the network that matched.
        voxel: of the fixed scan, as stored.
        radius: of the search around the match's answer, in millimetres.
    """

    def __init__(self, output_dir: str, network: GVSL, voxel: Sequence[float] | None, radius: float = 15.0) -> None:
        if voxel is None:
            raise InputError("which place? pass --voxel '[i, j, k]', a voxel of the fixed scan")
        self.output_dir, self.network, self.voxel, self.radius = Path(output_dir), network, list(voxel), radius

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """
        Args:
            data: a batch of one pair, see :class:`~scripts.matching.WriteMatch`.

        Returns:
            the same with ``correspondence``, what was written.
        """
        fixed, moving = data["original_image"], data["original_moving"]
        # of the grids that features are on, which a match on a finer grid is not
        fixed_affine, moving_affine = (data[key].affine[0].double().cpu() for key in ("image", "moving"))
        size = list(fixed.shape[2:])
        if len(self.voxel) != len(size) or any(not 0 <= v <= n - 1 for v, n in zip(self.voxel, size, strict=True)):
            path = fixed.meta["filename_or_obj"][0]
            raise InputError(f"voxel {self.voxel} lies outside {path}, which has {' x '.join(map(str, size))} voxels")
        place = torch.as_tensor(self.voxel, dtype=torch.float64).reshape(-1, *[1] * len(size))
        world = transform_points(fixed.affine[0], place)
        fixed_local, moving_local = (self._local(data[key]) for key in ("image", "moving"))
        prepared = transform_points(torch.linalg.inv(fixed_affine), world)
        feature = sample(fixed_local[None].double(), prepared[None], padding_mode="border").flatten()
        answer = world_match(data)(world)
        similarity = similarity_map(feature.float(), moving_local)
        grid = transform_points(moving_affine, voxel_grid(similarity.shape, answer))
        near = (grid - answer).square().sum(dim=0).sqrt() <= self.radius
        if not near.any():
            raise InputError(f"the place lies outside {moving.meta['filename_or_obj'][0]} after matching")
        best = torch.where(near, similarity, -2.0).flatten().argmax()
        found = {
            "fixed": {"voxel": self.voxel, "world_mm": world.flatten().tolist()},
            "by_match": self._place(answer.flatten(), moving.affine[0]),
            "by_features": self._place(grid.flatten(1)[:, best], moving.affine[0]),
            "similarity": float(similarity.flatten()[best]),
        }
        folder = self.output_dir / data["result"][0]
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(found, indent=4)
        write_text(text + "\n", folder / "correspondence.json")
        voxels = voxel_grid(moving.shape[2:], answer)
        to_prepared = torch.linalg.inv(moving_affine) @ moving.affine[0].double()
        everywhere = sample(similarity[None, None].double(), transform_points(to_prepared, voxels)[None])[0, 0]
        affine = moving.affine[0].double().numpy()
        write_nifti(everywhere.float().numpy(), affine, folder / "similarity.nii.gz", geometry_of(moving))
        print(text, flush=True)
        return {**data, "correspondence": found}

    def _local(self, image: torch.Tensor) -> torch.Tensor:
        device = next(self.network.parameters()).device
        with torch.no_grad():
            return plain(self.network.backbone(torch.as_tensor(image).to(device))[1])

    @staticmethod
    def _place(world: torch.Tensor, affine: torch.Tensor) -> dict[str, list[float]]:
        voxel = transform_points(torch.linalg.inv(affine.double()), world[:, None])[:, 0]
        return {"voxel": [round(v, 3) for v in voxel.tolist()], "world_mm": [round(v, 3) for v in world.tolist()]}
