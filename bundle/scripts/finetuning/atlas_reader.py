# SPDX-License-Identifier: Apache-2.0
"""Labels read off the features of a scan by a linear layer that is fitted to one labelled scan, or a few."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from monai.data import list_data_collate

from ..errors import check_numbers
from ..matching.write_match import label_codes, label_probabilities
from .linear_layer import fit_head
from .networks import Backbone, SegmentationNetwork


class AtlasReader:
    """
    A linear layer on frozen features, fitted to atlases when it is first asked: a voter beside the labels carried over,
    see :class:`~scripts.matching.VoteLabels`.

    Args:
        backbone: image to (f^g, f^l), with the weights of a pre-training.
        pairs: of scans and atlases, see :func:`~scripts.matching.list_propagation`; each atlas is taken once.
        preprocessing: of a dictionary with ``image`` and ``label``, see ``inference.json``.
        levels: of the decoder that the layer reads at most, from full size down.
        partial_labels: what a label map does not show was not drawn, see :func:`~scripts.finetuning.leave_open`.

    Raises:
        InputError: for a number of levels that cannot be meant.
    """

    def __init__(
        self,
        backbone: Backbone,
        pairs: Sequence[Mapping[str, Any]],
        preprocessing: Callable[[Any], Any],
        levels: int = 3,
        partial_labels: bool = False,
    ) -> None:
        check_numbers({"decoder_levels": levels}, lowest=1, whole=True)
        self.backbone, self.preprocessing, self.partial_labels = backbone, preprocessing, partial_labels
        self.levels = min(levels, len(backbone.features) - 1)
        self.atlases = list(dict.fromkeys((str(pair["moving"]), str(pair["label"])) for pair in pairs))
        self.network: SegmentationNetwork | None = None
        self.codes: list[int] = []

    @torch.no_grad()
    def __call__(self, image: torch.Tensor) -> tuple[list[int], torch.Tensor]:
        """
        Args:
            image: prepared, ``(1, C, D, H, W)``.

        Returns:
            the codes, and the share of each at every voxel ``(K, D, H, W)``, on the CPU.
        """
        network = self._fit() if self.network is None else self.network
        device = next(network.parameters()).device
        return self.codes, network(torch.as_tensor(image).to(device)).float().softmax(dim=1)[0].cpu()

    def _fit(self) -> SegmentationNetwork:
        started = time.perf_counter()
        prepared = [
            list_data_collate([self.preprocessing({"image": image, "label": label})]) for image, label in self.atlases
        ]
        shown = [torch.unique(label_codes(item["original_label"])) for item in prepared]
        self.codes = sorted({0, *torch.cat(shown).tolist()})
        network = SegmentationNetwork(self.backbone, max(2, len(self.codes)), linear=True, levels=self.levels)
        network.to(next(self.backbone.parameters()).device)
        items: Any = [
            {"image": torch.as_tensor(item["image"][0]).float(), "label": self._classes(item)} for item in prepared
        ]
        for item, present in zip(items, shown, strict=True) if self.partial_labels else ():
            item["drawn"] = torch.isin(torch.as_tensor(self.codes[1:]), present).float()
        fit_head(network, items, patches=len(items), show=False)
        self.network = network.eval()
        seconds = time.perf_counter() - started
        print(f"linear layer: fitted to {len(items)} labelled scan(s) in {seconds:.0f} s", flush=True)
        return self.network

    def _classes(self, item: Mapping[str, Any]) -> torch.Tensor:
        """Places in the list of codes on the prepared grid, ``(1, D, H, W)``; outside of the label map 0."""
        image, label = item["image"], item["original_label"]
        nowhere = torch.zeros(image.dim() - 2, *image.shape[2:])
        codes = torch.as_tensor(self.codes)
        shares = label_probabilities(label_codes(label), codes, label.affine[0], nowhere, image.affine[0])
        return shares.argmax(dim=0, keepdim=True)
