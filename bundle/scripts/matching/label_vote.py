# SPDX-License-Identifier: Apache-2.0
"""The vote of labelled scans on one scan: at each voxel the label with most weight, and the share that it has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import InputError
from ..losses.local_ncc import LocalNCCLoss
from ..spatial.displacement import inside_volume
from ..spatial.scanner_space import resample
from .match_table import Trusted, measure, scan_path
from .write_match import label_codes, label_probabilities, world_match

LEAST_SIMILARITY = 1e-3
"""Of an atlas that votes: even one unlike the scan decides where no other atlas reaches."""

Reader = Callable[[torch.Tensor], tuple[list[int], torch.Tensor]]
"""Of labels off a scan itself: the prepared image ``(1, C, D, H, W)`` to codes and their shares ``(K, D, H, W)``."""


@dataclass
class CarriedLabels:
    """
    What atlases say of one scan, all ``(D, H, W)`` on its own grid.

    Args:
        codes: of the labels, 0 where no atlas reaches.
        confidence: 0 to 1, the share of the weight that the code has; with a single atlas times its similarity.
        similarity: mean over the atlases, by weight, of the squared local NCC with the scan.
        seen: whether an atlas reaches the voxel.
        matches: what tells whether each match can be trusted, see :func:`~scripts.matching.match_table.measure`, with
            the path of the atlas, ``moving``.
    """

    codes: torch.Tensor
    confidence: torch.Tensor
    similarity: torch.Tensor
    seen: torch.Tensor
    matches: list[dict[str, str]]


class LabelVote:
    """
    Each atlas votes with its label map, carried over and interpolated linearly.

    Args:
        vote: "majority" counts every atlas alike; "similarity" weights it at each voxel by the local NCC between the
            scan and the atlas, warped.
        window: edge of the windows of the local NCC, in prepared voxels.
        power: of the similarity; higher lets the most similar atlas decide.
        reader_share: of the whole weight that a reader has, if there is one.
        trusted: see :func:`~scripts.matching.match_table.look_at`.
        partial_labels: what a label map does not show was not drawn: its atlas has no say on that structure, see
            :func:`count_votes`; else it votes against it.
    """

    def __init__(
        self,
        vote: str = "similarity",
        window: int = 5,
        power: float = 1.0,
        reader_share: float = 0.3,
        trusted: Trusted | None = None,
        partial_labels: bool = False,
    ) -> None:
        if vote not in ("majority", "similarity"):
            raise InputError(f"vote is 'majority' or 'similarity', not '{vote}'")
        if not 0 <= reader_share < 1:
            raise InputError(f"the share of the linear layer in the vote is 0 or more and below 1, not {reader_share}")
        self.vote, self.power, self.reader_share, self.partial_labels = vote, power, reader_share, partial_labels
        self.ncc, self.trusted = LocalNCCLoss(window), trusted
        self._open()

    def _open(self) -> None:
        self.votes: dict[int, torch.Tensor] = {}
        self.heard: dict[int, torch.Tensor] = {}
        self.weight, self.similarity = torch.zeros(1), torch.zeros(1)
        self.seen = torch.zeros(1, dtype=torch.bool)
        self.matches: list[dict[str, str]] = []

    def __len__(self) -> int:
        """Atlases that have voted."""
        return len(self.matches)

    def add(self, data: dict[str, Any]) -> None:
        """
        An atlas that lies beside the scan after matching reaches no voxel, and its match is one to look at.

        Args:
            data: a batch of one pair, see :class:`~scripts.matching.WriteMatch`, all of the same scan.
        """
        fixed, label = data["original_image"], data["original_label"]
        grid = fixed.affine[0]
        displacement = world_match(data, must_overlap=False).displacement(grid, fixed.shape[2:])
        similarity = self._similarity(data)
        weight = torch.ones_like(similarity)
        if self.vote == "similarity":
            weight = similarity.clamp(min=LEAST_SIMILARITY) ** self.power
        values = label_codes(label)
        codes = torch.unique(values)
        shares = label_probabilities(values, codes, label.affine[0], displacement, grid)
        for code, share in zip(codes.tolist(), shares, strict=True):
            self.votes[code] = self.votes.get(code, torch.zeros(1)) + weight * share
            self.heard[code] = self.heard.get(code, torch.zeros(1)) + weight * shares.sum(dim=0)
        self.weight, self.similarity = self.weight + weight, self.similarity + weight * similarity
        seen = shares.sum(dim=0) >= 0.5  # within half a voxel of the atlas's grid
        self.seen = self.seen | seen
        row = measure(data, self.trusted) | {"moving": scan_path(data["moving"])}
        self.matches.append(row if seen.any() else row | {"look_at": "yes", "doubts": "it lies beside the scan"})

    def close(self, data: dict[str, Any], reader: Reader | None = None) -> CarriedLabels:
        """
        Count, and be ready for the next scan.

        Args:
            data: the last batch.
            reader: a further voter.
        """
        shares = count_votes(self.votes, self.weight, self.heard if self.partial_labels else None)
        if reader is not None and self.reader_share:
            shares = {code: (1 - self.reader_share) * share for code, share in shares.items()}
            for code, share in zip(*reader(data["image"]), strict=True):
                shares[code] = shares.get(code, torch.zeros(1)) + self.reader_share * on_own_grid(share[None], data)[0]
        codes = torch.as_tensor(sorted(shares))
        confidence, winner = torch.stack([shares[int(code)] for code in codes]).max(dim=0)
        similarity = self.similarity / self.weight
        if len(self) == 1:  # nobody contradicts it
            confidence = confidence * similarity
        found = CarriedLabels(
            codes[winner].where(self.seen, 0), confidence.where(self.seen, 0), similarity, self.seen, self.matches
        )
        self._open()
        return found

    def _similarity(self, data: dict[str, Any]) -> torch.Tensor:
        """The squared local NCC of the scan and the warped atlas on the scan's own grid, ``(D, H, W)``."""
        displacement = torch.as_tensor(data["pred"]["displacement"]).float()
        warped, image = (torch.as_tensor(each).to(displacement) for each in (data["pred"]["warped"], data["image"]))
        found = self.ncc.at_voxels(warped, image, inside_volume(displacement)).mean(dim=1).cpu()
        return on_own_grid(found, data)[0].clamp(0, 1)


def count_votes(
    votes: Mapping[int, torch.Tensor], weight: torch.Tensor, heard: Mapping[int, torch.Tensor] | None = None
) -> dict[int, torch.Tensor]:
    """
    The share of each label. Where atlases have no say on what was not drawn in them, a structure's share is that of the
    atlases that show it, and the background's is what the structures leave: what an atlas calls background may be a
    structure that it lacks.

    Args:
        votes: of each code, the sum of the atlases' weights times their shares, ``(D, H, W)``; 0 is the background.
        weight: of all atlases.
        heard: of the atlases that show each code, where they reach; None where all have a say on every one.

    Returns:
        by code, ``(D, H, W)``; with ``heard`` the background is one of them.
    """
    if heard is None:
        return {code: vote / weight for code, vote in votes.items()}
    shares = {code: vote / heard[code].clamp(min=1e-6) for code, vote in votes.items() if code != 0}
    structures = sum(shares.values(), torch.zeros_like(weight))
    too_much = structures.clamp(min=1)
    return {0: (1 - structures).clamp(min=0)} | {code: share / too_much for code, share in shares.items()}


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
