# SPDX-License-Identifier: Apache-2.0
"""Labels carried over, as files: a label map a scan, how far each voxel can be trusted, and what to look at first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor

from ..data.labels import label_type
from ..data.writing import geometry_of, write_nifti
from ..progress import say
from .label_vote import CarriedLabels, LabelVote, Reader
from .match_table import Trusted, point_out, put_rows, scan_path

TABLE = "propagation.csv"
COLUMNS = ("result", "atlases", "confidence", "agreement", "unseen_percent", "look_at")
CONFIDENCE = "confidence"
"""Folder of the confidence maps, which have the names of the label maps."""


class VoteLabels:
    """
    Postprocessing step of the matching evaluator: each atlas votes, see
    :class:`~scripts.matching.label_vote.LabelVote`. When all have, three things are written:
    ``<output_dir>/<scan>.nii.gz``, the label map in the scan's own geometry; ``<output_dir>/confidence/<scan>.nii.gz``,
    0 to 1, the share of the weight that the chosen code has (with a single atlas times how alike it is to the scan
    around the voxel); and a line of ``propagation.csv``, the most doubtful scan first. Voxels that no atlas reaches get
    0, the background, and are counted on the screen; a result that a person should look at is named there.

    Args:
        output_dir: where to.
        vote: "majority" or "similarity".
        window: edge of the windows of the local NCC, in prepared voxels.
        power: of the similarity; higher lets the most similar atlas decide.
        reader: of labels off the scan itself, a further voter, such as :class:`~scripts.finetuning.AtlasReader`.
        reader_share: of the whole weight that the reader has; 0 leaves it out.
        trusted: see :func:`~scripts.matching.match_table.look_at`.
        partial_labels: what a label map does not show was not drawn: see
            :func:`~scripts.matching.label_vote.count_votes`.
    """

    def __init__(
        self,
        output_dir: str,
        vote: str = "similarity",
        window: int = 5,
        power: float = 1.0,
        reader: Reader | None = None,
        reader_share: float = 0.3,
        trusted: Trusted | None = None,
        partial_labels: bool = False,
    ) -> None:
        self.output_dir, self.reader = Path(output_dir), reader
        self.vote = LabelVote(vote, window, power, reader_share, trusted, partial_labels)

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """
        Args:
            data: a batch of one pair, see :class:`~scripts.matching.WriteMatch`, with ``votes`` and ``result``.

        Returns:
            the same, after the last atlas of a scan with ``unseen_voxels``, how many no atlas reached.
        """
        self.vote.add(data)
        if len(self.vote) < int(data["votes"][0]):
            return data
        carried = self.vote.close(data, self.reader)
        return {**data, "unseen_voxels": self._write(data["result"][0], data["original_image"], carried)}

    def _write(self, name: str, scan: MetaTensor, carried: CarriedLabels) -> int:
        unseen = int((~carried.seen).sum())
        share, path = 100 * unseen / carried.seen.numel(), scan_path(scan)
        if unseen:
            say(f"{path}: no atlas reaches {share:.1f} % of its voxels, which get 0 (background)")
        affine, like = scan.affine[0].double().numpy(), geometry_of(scan)
        (self.output_dir / CONFIDENCE).mkdir(parents=True, exist_ok=True)
        codes, confidence = carried.codes.numpy(), carried.confidence.float().numpy()
        write_nifti(codes.astype(label_type(carried.codes)), affine, self.output_dir / f"{name}.nii.gz", like)
        write_nifti(confidence, affine, self.output_dir / CONFIDENCE / f"{name}.nii.gz", like)
        labelled = carried.codes != 0
        said = carried.matches, bool(labelled.any())
        row = {
            "atlases": str(len(carried.matches)),
            "confidence": _mean(carried.confidence, labelled),
            "agreement": _mean(carried.similarity, labelled),
            "unseen_percent": f"{share:.1f}",
            "look_at": look_at(*said),
            "doubts": untrusted(*said),
        }
        put_rows(self.output_dir / TABLE, COLUMNS, name, [row], doubt)
        point_out(f"the labels of {path}", row)
        return unseen


def untrusted(matches: list[dict[str, str]], labelled: bool) -> str:
    """
    What speaks against a result.

    Args:
        matches: of the scan with each atlas, see :class:`~scripts.matching.label_vote.CarriedLabels`.
        labelled: whether any voxel got a label.

    Returns:
        that there is no label, or that no match can be trusted, with the first as an example; else nothing.
    """
    said = [] if labelled else ["no voxel got a label"]
    if {match["look_at"] for match in matches} == {"yes"}:
        said.append(f"no match can be trusted, as that of {matches[0]['moving']} ({matches[0]['doubts']})")
    return "; ".join(said)


def look_at(matches: list[dict[str, str]], labelled: bool) -> str:
    """
    Whether a person should look at a result.

    Args:
        matches, labelled: see :func:`untrusted`.

    Returns:
        "yes" where a result is :func:`untrusted`; "no" where a match can be trusted; nothing where that is not known.
    """
    one = any(match["look_at"] == "no" for match in matches)
    return "yes" if untrusted(matches, labelled) else "no" if one else ""


def doubt(row: dict[str, str]) -> tuple[bool, float]:
    """What the lines of ``propagation.csv`` are sorted by: those to look at first, then by confidence."""
    return row["look_at"] != "yes", float(row["confidence"] or 0)


def _mean(values: torch.Tensor, where: torch.Tensor) -> str:
    return f"{float(values[where].mean()):.4f}" if where.any() else "0.0000"
