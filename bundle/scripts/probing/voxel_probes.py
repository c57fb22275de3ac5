# SPDX-License-Identifier: Apache-2.0
"""What labels can be learned from a backbone: by a linear layer on frozen features, by a short fine-tuning."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from ..errors import check_numbers
from ..evaluation import label_dice
from ..finetuning import Backbone, SegmentationNetwork, fit_head, last_levels, leave_open, score_drawn
from ..finetuning.linear_layer import VOXELS
from ..networks.weight_norms import scale_weights, weight_norms
from ..training.bfloat16 import BFloat16Inferer
from .cases import next_of_another

Items = Sequence[Mapping[str, Any]]


@torch.no_grad()
def predicted(network: nn.Module, items: Items) -> list[torch.Tensor]:
    """Label maps ``(1, D, H, W)``, of small whole numbers, that a network gives scans."""
    device = next(network.parameters()).device
    network.eval()
    return [
        network(item["image"][None].to(device))[0].argmax(dim=0, keepdim=True).to("cpu", torch.uint8) for item in items
    ]


def dice_of(found: Sequence[torch.Tensor], items: Items) -> dict[str, float]:
    """Dice, the mean of the structures (of those drawn, where ``drawn`` says so), by the name of each scan."""
    dice: dict[str, float] = {}
    for label, item in zip(found, items, strict=True):
        label = label.to(item["label"])
        label = score_drawn(label, item["label"]) if "drawn" in item else label
        dice[item["name"]] = float(label_dice(label[None], item["label"][None]))
    return dice


class LinearProbe:
    """
    A linear layer fitted on a frozen backbone's decoder levels, side by side, see
    :func:`~scripts.finetuning.fit_linear_layer`.

    Args:
        voxels: drawn of each scan, at most; see :func:`~scripts.finetuning.fit_head`.
        iterations: of the fit, at most.
        levels: of the decoder that the layer reads, from full size down; None for all.
    """

    def __init__(self, voxels: int = VOXELS, iterations: int = 150, levels: int | None = None) -> None:
        check_numbers({"probe#linear#voxels": voxels, "probe#linear#iterations": iterations}, lowest=1, whole=True)
        self.settings, self.levels = {"voxels": voxels, "iterations": iterations}, levels

    def __call__(
        self, backbone: Backbone, learned: Items, tested: Items, structures: int, seed: int = 0
    ) -> dict[str, float]:
        """
        Args:
            backbone: it is left as it is.
            learned: scans to fit the layer to, see :class:`~scripts.probing.ProbeCases`.
            tested: scans to measure it on.
            structures: number of them.
            seed: of the voxels drawn.

        Returns:
            Dice by the name of each tested scan.
        """
        levels = self.levels or len(backbone.features) - 1
        network = SegmentationNetwork(backbone, structures + 1, linear=True, levels=levels)
        network.to(next(backbone.parameters()).device)
        fit_head(network, learned, patches=len(learned), seed=seed, show=False, **self.settings)  # type: ignore[arg-type]
        return dice_of(predicted(network, tested), tested)


def exchanged(learned: Items) -> list[dict[str, Any]]:
    """The same scans, each with the label map of the next one of another subject: what labels alone teach."""
    others = [next_of_another(learned, index) for index in range(len(learned))]
    told = ("label", "drawn")
    return [{**i, **{key: o[key] for key in told if key in o}} for i, o in zip(learned, others, strict=True)]


class FineTuning:
    """
    A short training of all weights on whole scans. The last layer may begin fitted to the features (the children's
    ``--mode fitted``), the decoder's last levels with random weights (their default); the rates rise and fall. There is
    no augmentation and no choice of a best step: the starts differ alone.

    Args:
        loss: of logits ``(1, K, D, H, W)`` and labels ``(1, 1, D, H, W)``; where an item has ``confidence``, of that
            too, as the labels.
        steps: each of one scan.
        learning_rate: of the backbone.
        head_learning_rate: of the last layer.
        warmup_steps: in which the rates rise.
        fresh_levels: levels of the decoder, from full size down, that begin with random weights.
        measured: how often the scans held back are measured on the way.
        voxels: of each scan, for the fit of the last layer.
        iterations: of that fit.
        levels: of the decoder that the last layer reads, from full size down; None for all.
        fitted: begin with the last layer fitted to the features; else it is random.
        bfloat16: of the steps; None where the device is fast at it.
    """

    def __init__(
        self,
        loss: Callable[..., torch.Tensor],
        steps: int = 60,
        learning_rate: float = 5e-4,
        head_learning_rate: float = 0.05,
        warmup_steps: int = 10,
        fresh_levels: int = 1,
        measured: int = 4,
        voxels: int = VOXELS,
        iterations: int = 150,
        levels: int | None = 1,
        fitted: bool = True,
        bfloat16: bool | None = False,
    ) -> None:
        own = {"measured": measured, "voxels": voxels, "iterations": iterations}
        check_numbers({"steps": steps} | {f"probe#fine_tuning#{name}": own[name] for name in own}, lowest=1, whole=True)
        self.loss, self.steps, self.fresh_levels, self.warmup = loss, steps, fresh_levels, warmup_steps
        self.levels, self.fitted = levels, fitted
        self.call = BFloat16Inferer(bfloat16)
        self.fit = {"voxels": voxels, "iterations": iterations, "show": False}
        self.rates = (learning_rate, head_learning_rate)
        self.measured = {max(1, round(steps * part / measured)) for part in range(1, measured + 1)}

    def __call__(
        self, start: Backbone, fresh: Backbone, learned: Items, tested: Items, structures: int, seed: int = 0
    ) -> tuple[dict[int, dict[str, float]], list[torch.Tensor]]:
        """
        Args:
            start: the weights to begin with; it is left as it is.
            fresh: a backbone of random weights.
            learned: scans to train on, see :class:`~scripts.probing.ProbeCases`.
            tested: scans to measure on.
            structures: number of them.
            seed: of the order of the scans.

        Returns:
            by step the Dice of each tested scan by its name, and the label maps found at the end.
        """
        device = next(start.parameters()).device
        backbone = copy.deepcopy(start).requires_grad_(True)
        scale_weights(backbone, weight_norms(fresh))  # as load_pretrained does
        backbone.load_state_dict(last_levels(fresh, self.fresh_levels), strict=False)
        levels = self.levels or len(backbone.features) - 1
        network = SegmentationNetwork(backbone, structures + 1, levels=levels).to(device)
        if self.fitted:
            fit_head(network, learned, patches=len(learned), seed=seed, **self.fit)  # type: ignore[arg-type]
        groups = zip((network.backbone, network.head), self.rates, strict=True)
        optimizer = torch.optim.Adam([{"params": list(part.parameters()), "lr": rate} for part, rate in groups])
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min(1, (step + 1) / (self.warmup + 1)) * max(0, 1 - step / self.steps) ** 0.9
        )
        rng = np.random.default_rng(seed)
        curve: dict[int, dict[str, float]] = {}
        found: list[torch.Tensor] = []
        for step in range(1, self.steps + 1):
            network.train()
            item = learned[int(rng.integers(len(learned)))]
            optimizer.zero_grad()
            known = [item[key][None].to(device) for key in ("label", "confidence") if key in item]
            logits = self.call(item["image"][None].to(device), network)
            logits = leave_open(logits, item["drawn"][None]) if "drawn" in item else logits
            self.loss(logits, *known).backward()
            optimizer.step()
            schedule.step()
            if step in self.measured:
                found = predicted(network, tested)
                curve[step] = dice_of(found, tested)
        return curve, found
