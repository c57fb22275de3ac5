# SPDX-License-Identifier: Apache-2.0
"""Labels carried over from one labelled scan, or several that vote, and how far each voxel can be trusted."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor

from ..data.labels import label_type
from ..data.writing import geometry_of, write_nifti
from ..errors import InputError
from ..losses.local_ncc import LocalNCCLoss
from ..spatial.displacement import inside_volume
from ..spatial.scanner_space import resample
from .match_table import measure, put_rows
from .write_match import label_codes, label_probabilities, world_match

LEAST_SIMILARITY = 1e-3
"""Of an atlas that votes: even one unlike the scan decides where no other atlas reaches."""
TABLE = "propagation.csv"
COLUMNS = ("result", "atlases", "confidence", "agreement", "unseen_percent", "look_at")
CONFIDENCE = "confidence"
"""Folder of the confidence maps, which have the names of the label maps."""


@dataclass
class Ballot:
    """
    The votes on one scan so far, all on its own grid.

    Args:
        votes: sum of the weighted shares of each code, ``(D, H, W)``.
        weight: sum of the weights, ``(D, H, W)``.
        similarity: sum of the weighted local similarities, ``(D, H, W)``.
        seen: whether an atlas reaches the voxel, ``(D, H, W)``.
        matches: what tells whether each match can be trusted, see :func:`~scripts.matching.match_table.measure`.
    """

    votes: dict[int, torch.Tensor] = field(default_factory=dict)
    weight: torch.Tensor = field(default_factory=lambda: torch.zeros(1))
    similarity: torch.Tensor = field(default_factory=lambda: torch.zeros(1))
    seen: torch.Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.bool))
    matches: list[dict[str, str]] = field(default_factory=list)


class VoteLabels:
    """
    Postprocessing step of the matching evaluator: each atlas votes with its label map, carried over and interpolated
    linearly. When all have, three things are written: ``<output_dir>/<scan>.nii.gz``, the label map in the scan's own
    geometry; ``<output_dir>/confidence/<scan>.nii.gz``, 0 to 1, the share of the weight that the chosen code has (with
    a single atlas times how alike it is to the scan around the voxel); and a line of ``propagation.csv``, the most
    doubtful scan first. Voxels that no atlas reaches get 0, the background, and are counted on the screen.

    Args:
        output_dir: where to.
        vote: "majority" counts every atlas alike; "similarity" weights it at each voxel by the local NCC between the
            scan and the atlas, warped.
        window: edge of the windows of the local NCC, in prepared voxels.
        power: of the similarity; higher lets the most similar atlas decide.
    """

    def __init__(self, output_dir: str, vote: str = "similarity", window: int = 5, power: float = 1.0) -> None:
        if vote not in ("majority", "similarity"):
            raise InputError(f"vote is 'majority' or 'similarity', not '{vote}'")
        self.output_dir, self.vote, self.power = Path(output_dir), vote, power
        self.ncc = LocalNCCLoss(window)
        self.ballot = Ballot()

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """
        Args:
            data: a batch of one pair, see :class:`~scripts.matching.WriteMatch`, with ``votes`` and ``result``.

        Returns:
            the same, after the last atlas of a scan with ``unseen_voxels``, how many no atlas reached.
        """
        fixed, label, ballot = data["original_image"], data["original_label"], self.ballot
        grid = fixed.affine[0]
        displacement = world_match(data).displacement(grid, fixed.shape[2:])
        similarity = self._similarity(data)
        weight = torch.ones_like(similarity)
        if self.vote == "similarity":
            weight = similarity.clamp(min=LEAST_SIMILARITY) ** self.power
        values = label_codes(label)
        codes = torch.unique(values)
        shares = label_probabilities(values, codes, label.affine[0], displacement, grid)
        for code, share in zip(codes.tolist(), shares, strict=True):
            ballot.votes[code] = ballot.votes.get(code, torch.zeros(1)) + weight * share
        ballot.weight, ballot.similarity = ballot.weight + weight, ballot.similarity + weight * similarity
        ballot.seen = ballot.seen | (shares.sum(dim=0) >= 0.5)  # within half a voxel of the atlas's grid
        ballot.matches.append(measure(data))
        if len(ballot.matches) < int(data["votes"][0]):
            return data
        self.ballot = Ballot()
        return {**data, "unseen_voxels": self._write(data["result"][0], fixed, ballot)}

    def _similarity(self, data: dict[str, Any]) -> torch.Tensor:
        """The squared local NCC of the scan and the warped atlas on the scan's own grid, ``(D, H, W)``."""
        displacement = torch.as_tensor(data["pred"]["displacement"]).float()
        warped, image = (torch.as_tensor(each).to(displacement) for each in (data["pred"]["warped"], data["image"]))
        found = self.ncc.at_voxels(warped, image, inside_volume(displacement)).mean(dim=1).cpu()
        return on_own_grid(found, data)[0].clamp(0, 1)

    def _write(self, name: str, scan: MetaTensor, ballot: Ballot) -> int:
        path = str(scan.meta["filename_or_obj"][0])
        codes = torch.as_tensor(sorted(ballot.votes))
        most, winner = torch.stack([ballot.votes[int(code)] for code in codes]).max(dim=0)
        similarity = ballot.similarity / ballot.weight
        confidence = most / ballot.weight
        if len(ballot.matches) == 1:  # nobody contradicts it
            confidence = confidence * similarity
        winner, confidence = codes[winner].where(ballot.seen, 0), confidence.where(ballot.seen, 0)
        unseen = int((~ballot.seen).sum())
        share = 100 * unseen / ballot.seen.numel()
        if unseen:
            print(f"{path}: no atlas reaches {share:.1f} % of its voxels, which get 0 (background)", flush=True)
        affine, like = scan.affine[0].double().numpy(), geometry_of(scan)
        (self.output_dir / CONFIDENCE).mkdir(parents=True, exist_ok=True)
        write_nifti(winner.numpy().astype(label_type(winner)), affine, self.output_dir / f"{name}.nii.gz", like)
        write_nifti(confidence.float().numpy(), affine, self.output_dir / CONFIDENCE / f"{name}.nii.gz", like)
        labelled = winner != 0
        row = {
            "atlases": str(len(ballot.matches)),
            "confidence": _mean(confidence, labelled),
            "agreement": _mean(similarity, labelled),
            "unseen_percent": f"{share:.1f}",
            "look_at": look_at(ballot.matches, bool(labelled.any())),
        }
        put_rows(self.output_dir / TABLE, COLUMNS, name, [row], doubt)
        return unseen


def on_own_grid(values: torch.Tensor, data: dict[str, Any]) -> torch.Tensor:
    """
    Values of the prepared grid on the scan's own, interpolated linearly; beyond the prepared grid its border's.

    Args:
        values: ``(C, D, H, W)``.
        data: a batch of one scan: ``image``, prepared, and ``original_image``.

    Returns:
        ``(C, *size)``.
    """
    fixed = data["original_image"]
    nowhere = torch.zeros(fixed.dim() - 2, *fixed.shape[2:])
    return resample(values, data["image"].affine[0].cpu(), nowhere, fixed.affine[0], padding_mode="border")


def look_at(matches: list[dict[str, str]], labelled: bool) -> str:
    """
    Whether a person should look at a result.

    Args:
        matches: of the scan with each atlas, see :func:`~scripts.matching.match_table.measure`.
        labelled: whether any voxel got a label.

    Returns:
        "yes" without a label, or where no match can be trusted; "no" where one can; nothing where that is not known.
    """
    said = {match.get("look_at", "") for match in matches}
    return "yes" if not labelled or said == {"yes"} else "no" if "no" in said else ""


def doubt(row: dict[str, str]) -> tuple[bool, float]:
    """What the lines of ``propagation.csv`` are sorted by: those to look at first, then by confidence."""
    return row["look_at"] != "yes", float(row["confidence"] or 0)


def _mean(values: torch.Tensor, where: torch.Tensor) -> str:
    return f"{float(values[where].mean()):.4f}" if where.any() else "0.0000"
