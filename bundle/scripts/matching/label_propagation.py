# SPDX-License-Identifier: Apache-2.0
"""Labels for a whole folder from one labelled scan, or a few: matched, carried over, put to the vote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor

from ..data.find_scans import find_scans
from ..data.labels import label_type
from ..data.result_names import record_results, refuse_overwriting, result_names, show_results
from ..data.writing import geometry_of, write_nifti
from ..errors import InputError
from ..losses.local_ncc import LocalNCCLoss
from ..spatial.displacement import inside_volume
from ..spatial.scanner_space import WorldMatch
from .list_pairs import Paths, expand, list_pairs, same_file
from .write_match import label_codes, label_probabilities, world_match

LEAST_SIMILARITY = 1e-3
"""Of an atlas that votes: even one unlike the scan decides where no other atlas reaches."""


def list_propagation(
    dataset_dir: str,
    atlas: Paths | None,
    atlas_label: Paths | None,
    output_dir: str | None = None,
    dry_run: bool = False,
    label_maps: bool = False,
    bids_suffix: str | None = None,
) -> list[dict[str, Any]]:
    """
    Every scan of a folder paired with every atlas.

    Args:
        dataset_dir: folder of the scans that need labels; atlases in it are left out.
        atlas: labelled scans: a file, a folder, a pattern or a list.
        atlas_label: their label maps, in the same order.
        output_dir: where results go; None only lists.
        dry_run: print what would be used, and end the program.
        label_maps: take label maps for scans too.
        bids_suffix: see :func:`~scripts.matching.expand`.

    Returns:
        pairs as from :func:`~scripts.matching.list_pairs`, with ``votes``, the number of atlases, and the scan's name
        as ``result``; those of one scan follow each other.

    Raises:
        InputError: without atlases or labels, or where one cannot be used.
    """
    if atlas is None or atlas_label is None:
        raise InputError("carrying labels over needs --atlas <scan> and --atlas_label <its label map>")
    atlases, labels = expand(atlas, label_maps, bids_suffix), expand(atlas_label, label_maps=True)
    if len(atlases) != len(labels):
        raise InputError(f"{len(atlases)} atlases have {len(labels)} label maps: give one each, in the same order")
    found = find_scans(dataset_dir, min_subjects=1, label_maps=label_maps, bids_suffix=bids_suffix)
    scans = [scan["image"] for scan in found]
    unlabelled = [path for path in scans if not any(same_file(path, own) for own in atlases)]
    names = result_names(unlabelled)
    pairs = [
        {"image": path, "moving": moving, "moving_label": label}
        for path in unlabelled
        for moving, label in zip(atlases, labels, strict=True)
    ]
    listed = list_pairs(pairs=pairs)
    if dry_run:
        show_results({name: [path, *atlases] for path, name in names.items()})
    if output_dir is not None:
        refuse_overwriting([*scans, *atlases, *labels], [Path(output_dir, f"{name}.nii.gz") for name in names.values()])
        record_results(output_dir, {name: [path, *atlases] for path, name in names.items()})
    return [{**pair, "votes": len(atlases), "result": names[pair["image"]]} for pair in listed]


class VoteLabels:
    """
    Postprocessing step of the matching evaluator: each atlas votes with its label map, carried over and interpolated
    linearly; when all have, the label map of the scan is written in its own geometry, as
    ``<output_dir>/<scan>.nii.gz``. Voxels that no atlas reaches get 0, the background, and are counted on the screen.

    Args:
        output_dir: where to.
        vote: "majority" counts every atlas alike, "similarity" weights it by the local NCC it reached.
        power: of the similarity; higher lets the best atlas decide.
    """

    def __init__(self, output_dir: str, vote: str = "similarity", power: float = 4.0) -> None:
        if vote not in ("majority", "similarity"):
            raise InputError(f"vote is 'majority' or 'similarity', not '{vote}'")
        self.output_dir, self.vote, self.power = Path(output_dir), vote, power
        self.ncc = LocalNCCLoss()
        self.votes: dict[int, torch.Tensor] = {}
        self.seen = torch.zeros(1, dtype=torch.bool)
        self.count = 0

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """
        Args:
            data: a batch of one pair, see :class:`~scripts.matching.WriteMatch`, with ``votes`` and ``result``.

        Returns:
            the same, after the last atlas of a scan with ``unseen_voxels``, how many no atlas reached.
        """
        match: WorldMatch = world_match(data)
        fixed, label = data["original_image"], data["original_label"]
        grid = fixed.affine[0]
        displacement = match.displacement(grid, fixed.shape[2:])
        weight = self._weight(data)
        values = label_codes(label)
        codes = torch.unique(values)
        shares = label_probabilities(values, codes, label.affine[0], displacement, grid)
        for code, share in zip(codes.tolist(), shares, strict=True):
            self.votes[code] = self.votes.get(code, torch.zeros(1)) + weight * share
        self.seen = self.seen | (shares.sum(dim=0) >= 0.5)  # within half a voxel of the atlas's grid
        self.count += 1
        if self.count < int(data["votes"][0]):
            return data
        return {**data, "unseen_voxels": self._write(data["result"][0], fixed)}

    def _weight(self, data: dict[str, Any]) -> float:
        if self.vote == "majority":
            return 1.0
        displacement = data["pred"]["displacement"]
        similarity = self.ncc.per_image(
            torch.as_tensor(data["pred"]["warped"]), data["image"].to(displacement), inside_volume(displacement)
        )
        return max(float(similarity[0]), LEAST_SIMILARITY) ** self.power

    def _write(self, name: str, scan: MetaTensor) -> int:
        path = str(scan.meta["filename_or_obj"][0])
        codes = torch.as_tensor(sorted(self.votes))
        winner = codes[torch.stack([self.votes[int(code)] for code in codes]).argmax(dim=0)]
        winner = winner.where(self.seen, 0)
        unseen = int((~self.seen).sum())
        if unseen:
            share = 100 * unseen / self.seen.numel()
            print(f"{path}: no atlas reaches {share:.1f} % of its voxels, which get 0 (background)", flush=True)
        self.output_dir.mkdir(parents=True, exist_ok=True)
        affine = scan.affine[0].double().numpy()
        target = self.output_dir / f"{name}.nii.gz"
        write_nifti(winner.numpy().astype(label_type(winner)), affine, target, geometry_of(scan))
        self.votes, self.seen, self.count = {}, torch.zeros(1, dtype=torch.bool), 0
        return unseen
