# SPDX-License-Identifier: Apache-2.0
"""Inside MONAI Label: the labels that people have saved on the server, carried to the scan that is open."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor, list_data_collate
from monai.inferers import Inferer

from ..data.label_checks import check_label
from ..data.result_names import VOLUME_ENDINGS, folded, scan_name
from ..errors import InputError
from .inferer import MatchingInferer
from .label_vote import LabelVote, Reader

SAVED = Path("labels", "final")
"""Where MONAI Label keeps what was submitted, below the folder of the scans."""


def saved_labels(scan: str) -> list[tuple[str, str]]:
    """
    The other scans of a folder of MONAI Label that have a submitted label.

    Args:
        scan: path of the one that is open.

    Returns:
        paths of scans and of their label maps, the last saved first.
    """
    folder = Path(scan).parent
    scans = {folded(scan_name(path)): path for path in folder.iterdir() if path.name.lower().endswith(VOLUME_ENDINGS)}
    saved = folder / SAVED
    labels = sorted(saved.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True) if saved.is_dir() else []
    found = [(scans.get(folded(scan_name(path))), path) for path in labels if not path.name.startswith(".")]
    return [(str(image), str(label)) for image, label in found if image is not None and image != Path(scan)]


class SavedLabelsInferer(Inferer):
    """
    Carries submitted labels to a scan: matches it with each labelled one, and lets these and a linear layer vote, see
    :class:`~scripts.matching.label_vote.LabelVote`.

    Args:
        preprocessing: of dictionaries with ``image``, ``moving`` and ``label``, see ``inference.json``.
        match: of two scans, see ``inference.json``.
        reader: (backbone, pairs) to a further voter, such as :class:`~scripts.finetuning.AtlasReader`; None for none.
        atlases: how many labelled scans vote at most; those saved last.
        partial_labels: what a submitted label map does not show was not drawn in it (yet), see
            :func:`~scripts.matching.label_vote.count_votes`.
    """

    def __init__(
        self,
        preprocessing: Callable[[Any], Any],
        match: MatchingInferer,
        reader: Callable[[torch.nn.Module, Sequence[Mapping[str, Any]]], Reader] | None = None,
        atlases: int = 5,
        partial_labels: bool = False,
    ) -> None:
        self.preprocessing, self.match, self.reader, self.atlases = preprocessing, match, reader, atlases
        self.partial_labels = partial_labels

    @torch.no_grad()
    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """
        Args:
            inputs: the scan as it was read, ``(1, 1, D, H, W)``, with its path in the meta data.
            network: see :class:`~scripts.networks.GVSL`.
            args: not used.
            kwargs: not used.

        Returns:
            label map on the scan's own grid, of the same shape.

        Raises:
            InputError: when no other scan has a submitted label, or one does not fit its scan.
        """
        if not isinstance(inputs, MetaTensor):
            raise TypeError("the scan came without its path")
        path = inputs.meta["filename_or_obj"]
        path = str(path[0] if isinstance(path, list | tuple) else path)
        pairs = [{"image": path, "moving": scan, "label": label} for scan, label in saved_labels(path)[: self.atlases]]
        if not pairs:
            raise InputError(
                f"no other scan beside {path} has a submitted label yet: draw one, submit it, and open the next scan"
            )
        vote, data = LabelVote(partial_labels=self.partial_labels), {}
        for pair in pairs:
            check_label(pair["moving"], pair["label"])
            data = list_data_collate([self.preprocessing(dict(pair))])
            images = (data[key].to(inputs.device) for key in ("moving", "original_image", "original_moving"))
            data["pred"] = self.match(data["image"].to(inputs.device), network, *images)
            vote.add(data)
        reader = None if self.reader is None else self.reader(network.backbone, pairs)  # type: ignore[attr-defined]
        codes = vote.close(data, reader).codes.float()  # ITK, which writes the answer, has no images of long integers
        return MetaTensor(codes[None, None].to(inputs.device), meta=inputs.meta)
