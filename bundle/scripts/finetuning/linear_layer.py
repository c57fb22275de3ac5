# SPDX-License-Identifier: Apache-2.0
"""A linear layer on frozen features, fitted in seconds by L-BFGS: what one to three labelled scans are enough for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from ignite.engine import Engine, Events
from torch import nn
from torch.nn import functional
from torch.utils.data import Dataset

from ..errors import InputError
from .networks import SegmentationNetwork
from .partial_labels import leave_open

VOXELS = 400_000
"""That a layer is fitted to at most: all of one scan on a usual grid, and of ten what seconds and a gigabyte allow."""


def fit_linear_layer(
    features: Sequence[torch.Tensor],
    labels: Sequence[torch.Tensor],
    num_classes: int,
    iterations: int = 150,
    weight_decay: float = 1e-3,
    background_share: float = 0.3,
    seed: int = 0,
    drawn: Sequence[torch.Tensor] | None = None,
    scans: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Logistic regression of the voxels' classes with the soft Dice in its loss: cross-entropy, weighted by the inverse
    square root of a class's frequency, plus 1 - mean soft Dice of the structures, plus weight decay.

    scikit-learn's ``LogisticRegression`` has no Dice in its loss, without which rare structures are over- or underrated
    whatever the weights (heads, 12 structures, one labelled scan: Dice 0.47 to 0.52 in place of 0.57).

    The features are standardised for the fit alone; the layer returned takes them as they are. What it is fitted to
    decides, see ``docs/choices.md`` of the repository: by 8000 voxels of each scan and 40 iterations the same features
    seem to know far less.

    Args:
        features: of each scan, ``(C, D, H, W)``.
        labels: class numbers of each scan, 0 the background, ``(D, H, W)``.
        num_classes: structures and background.
        iterations: of L-BFGS, at most.
        weight_decay: of the squared weights of the standardised features, divided by the number of scans: what is known
            beforehand counts less the more scans tell otherwise.
        background_share: share of the background's voxels that are drawn (each counts for more then).
        seed: of that draw.
        drawn: which structures were drawn in each scan, ``(num_classes - 1,)``, see :func:`leave_open`; None for all.
        scans: different ones among them; None where each is one of its own.

    Returns:
        weight ``(num_classes, C)`` and bias ``(num_classes,)``.

    Raises:
        InputError: without any labelled scan, or when no scan shows a structure.
    """
    if not features:
        raise InputError("a linear layer needs at least one labelled scan")
    values = torch.cat([part.float().flatten(1).T for part in features])
    classes = torch.cat([part.flatten().long() for part in labels])
    if not (classes > 0).any():
        raise InputError("a linear layer needs a structure to learn, but all labels are background")
    spread, mean = torch.std_mean(values, dim=0)
    spread = spread.clamp(min=1e-6)
    chance = torch.rand(len(classes), generator=torch.Generator().manual_seed(seed)).to(classes.device)
    chosen = (classes > 0) | (chance < background_share)
    classes, values = classes[chosen], (values[chosen] - mean) / spread
    shown: torch.Tensor | None = None
    if drawn is not None and not all(bool(one.all()) for one in drawn):
        numbers = torch.tensor([part[0].numel() for part in features])
        shown = torch.stack(list(drawn)).repeat_interleave(numbers, dim=0).to(classes.device)[chosen]
    stands_for = torch.where(classes > 0, 1.0, 1 / background_share)
    count = torch.bincount(classes, weights=stands_for, minlength=num_classes)
    rarity = (count.sum() / (num_classes * count.clamp(min=1))).sqrt().float()
    share = stands_for * rarity[classes]
    share = share / share.sum()
    truth, present = functional.one_hot(classes, num_classes).float(), count[1:] > 0
    weight = torch.zeros(values.shape[1], num_classes, device=values.device, requires_grad=True)
    bias = torch.zeros(num_classes, device=values.device, requires_grad=True)
    decay = weight_decay / (scans or len(features))
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=iterations, history_size=20, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        logits = values @ weight + bias
        logits = logits if shown is None else leave_open(logits, shown)
        found = logits.softmax(dim=1) * stands_for[:, None]
        both = (found * truth).sum(dim=0)
        dice = (2 * both + 1) / (found.sum(dim=0) + (truth * stands_for[:, None]).sum(dim=0) + 1)
        entropy = (share * functional.cross_entropy(logits, classes, reduction="none")).sum()
        loss = entropy + 1 - dice[1:][present].mean() + decay * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    weight, bias = weight.detach() / spread[:, None], bias.detach()
    return weight.T.contiguous(), bias - mean @ weight


@torch.no_grad()
def fit_head(
    network: SegmentationNetwork,
    dataset: Dataset,
    patches: int = 24,
    voxels: int = VOXELS,
    seed: int = 0,
    show: bool = True,
    scans: int | None = None,
    **settings: Any,
) -> None:
    """
    Fit the last layer of a network to patches of its training set, its backbone as it is.

    Args:
        network: whose head is replaced by what is fitted; it may lie on any device.
        dataset: its items hold ``image`` and ``label``, ``(1, D, H, W)`` each, and possibly ``drawn``, see
            :func:`leave_open`; the first ones are taken.
        patches: how many at most.
        voxels: drawn of each patch at most, and no more than :data:`VOXELS` of all together.
        seed: of the draws.
        show: say so in a line.
        scans: that the patches are of; None where each is of one of its own.
        settings: see :func:`fit_linear_layer`.
    """
    training, device = network.training, next(network.parameters()).device
    generator, features, labels, shown = torch.Generator().manual_seed(seed), [], [], []
    head = cast(nn.Conv3d, network.head)
    network.eval()
    count = min(patches, len(dataset))  # type: ignore[arg-type]
    voxels = min(voxels, VOXELS // max(1, count))
    for index in range(count):
        item = dataset[index]
        item = item[0] if isinstance(item, list) else item  # a crop's list of one
        shown.append(item.get("drawn", torch.ones(head.out_channels - 1)))
        found = network.features(item["image"][None].to(device))[0].flatten(1)
        label = item["label"].flatten().to(device)
        places = torch.randperm(len(label), generator=generator)[:voxels].to(device)
        features.append(found[:, places])
        labels.append(label[places])
    several = min(scans or len(features), len(features))
    weight, bias = fit_linear_layer(
        features, labels, head.out_channels, seed=seed, drawn=shown, scans=several, **settings
    )
    head.weight.copy_(weight.reshape(head.weight.shape))
    assert head.bias is not None
    head.bias.copy_(bias)
    network.train(training)
    if show:
        print(f"last layer: fitted to {len(features)} patches of the training set", flush=True)


class FitLastLayer:
    """
    Fits the last layer of a segmentation when its training starts, see :func:`fit_head`.

    Args:
        network: whose head is fitted.
        dataset: the training set.
        scans: see :func:`fit_head`.
        seed: of the draws.
        only_new: leave a layer that has learned something as it is; one of zeros, with which ``make child`` begins, has
            not. So a server's first training begins with a fitted layer, and the next ones go on.
    """

    def __init__(
        self, network: SegmentationNetwork, dataset: Dataset, scans: int, seed: int = 0, only_new: bool = False
    ) -> None:
        self.network, self.dataset, self.scans, self.seed, self.only_new = network, dataset, scans, seed, only_new

    def attach(self, engine: Engine) -> None:
        """Register with the trainer, after what loads weights and before what validates them."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Any = None) -> None:
        head = cast(nn.Conv3d, self.network.head)
        if not self.only_new or not head.weight.any():
            fit_head(self.network, self.dataset, scans=self.scans, seed=self.seed)
