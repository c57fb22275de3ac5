# SPDX-License-Identifier: Apache-2.0

"""What the benchmark measures: whole steps, parts of them, memory."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from benchmark_restatement import plain_copy, published_copy, restated_step
from benchmark_runs import REPOSITORY
from monai.bundle import ConfigParser
from monai.utils import set_determinism
from scripts.finetuning import SegmentationNetwork
from scripts.networks import GVSL, Levels, UNetBackbone, checkpoint_activations
from torch.utils.flop_counter import FlopCounterMode

BUNDLE = REPOSITORY / "bundle"
CHILD = REPOSITORY / "downstream" / "brain_mr_segmentation"
PAPER: dict[str, Any] = {"overlays": ["paper"], "batch_size": 1, "validation_fraction": 0.2}
"""The paper's step, of one pair, as the restatement states it."""


def seconds(action: Callable[[], Any]) -> float:
    """Time of one call: of this process on a CPU, which others may use too; by the clock on a GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        begun = time.perf_counter()
        action()
        torch.cuda.synchronize()
        return time.perf_counter() - begun
    begun = time.process_time()
    action()
    return time.process_time() - begun


def interleaved(actions: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """
    The median time of each action. They take turns, so that what else the machine does hits all of them, in an order
    that is drawn anew each time: what one leaves in caches and freed memory helps or hinders the next.
    """
    for action in actions.values():
        action()
    times: dict[str, list[float]] = {name: [] for name in actions}
    draw = random.Random(0)
    for _ in range(repeats):
        for name in draw.sample(list(actions), len(actions)):
            times[name].append(seconds(actions[name]))
    return {name: median(values) for name, values in times.items()}


def peak_memory(action: Callable[[], Any], network: torch.nn.Module) -> int:
    """Bytes of tensors that an action adds at most to those that were there; gradients of earlier steps are freed."""
    network.zero_grad(set_to_none=True)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        action()
        return torch.cuda.max_memory_allocated() - before
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        action()
    events = [e for e in profile.kineto_results.events() if e.name() == "[memory]"]
    total = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        total += event.nbytes()
        most = max(most, total)
    return most


class Training:
    """
    The parts of a training on phantoms, as ``train.json`` makes them.

    Args:
        data: folder of phantoms.
        output: folder that is named as the run's; nothing is written.
        overlays: names of the bundle's configurations that are laid over ``train.json``.
        settings: ids of the configuration.
    """

    def __init__(self, data: Path, output: Path, overlays: Sequence[str] = (), **settings: Any) -> None:
        set_determinism(0)
        parser = ConfigParser()
        parser.read_config([str(BUNDLE / "configs" / f"{name}.json") for name in ("train", *overlays)])
        given = {"bundle_root": str(BUNDLE), "dataset_dir": str(data), "output_dir": str(output), "num_workers": 0}
        parser.update({**given, "intensity": "window", "first_process": False, **settings})
        self.parser = parser
        self.network = parser.get_parsed_content("network")
        self.device = parser.get_parsed_content("device")
        self.trainer = parser.get_parsed_content("train#trainer")
        self.loader = parser.get_parsed_content("train#dataloader")
        self.batches = self._endless()
        self.batch = next(self.batches)
        self.plain = plain_copy(self.network)
        self.published = published_copy(self.network)
        self.published_optimizer = torch.optim.Adam(self.published.parameters(), 1e-4)
        checkpoint_activations(self.network, parser.get_parsed_content("activation_checkpointing"))
        self.draw, self.bfloat16 = 0, False

    def _endless(self) -> Any:
        while True:
            yield from self.loader

    def images(self) -> torch.Tensor:
        """Both images of a pair as one batch, ``(2 B, 1, D, H, W)``."""
        return torch.cat([self.batch["image"], self.batch["moving"]]).to(self.device)

    def step(self) -> None:
        """A whole step: data, augmentation, network, losses, gradients, optimiser."""
        batch = next(self.batches)
        self.trainer.state.iteration += 1
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            self.trainer._iteration(self.trainer, batch)

    def backbone(self) -> None:
        """The limit: forward and backward of the backbone alone, of MONAI's and PyTorch's own layers."""
        self._forward_and_backward(self.plain)

    def own_backbone(self) -> None:
        """The same with this bundle's faster layers."""
        self._forward_and_backward(self.network)

    def _forward_and_backward(self, network: GVSL) -> None:
        network.zero_grad(set_to_none=True)
        sum(features.sum() for features in network.backbone(self.images())).backward()

    def restatement(self) -> None:
        """The published step, straightforward, of the pair that the data set draws next."""
        dataset = self.loader.dataset
        fixed, moving, seed = dataset.indices(self.draw)
        self.draw += 1
        pair = {"fixed": dataset.scans.data[fixed], "moving": dataset.scans.data[moving]}
        decode = self.parser.get_parsed_content("train#preprocessing")
        restated_step(self.published, self.published_optimizer, decode, pair, seed)

    def match(self) -> None:
        """A pair matched: as inference does it, without reading and writing."""
        self.network.eval()
        with torch.no_grad():
            self.network(self.batch["image"].to(self.device), self.batch["moving"].to(self.device))

    def passes(self) -> None:
        """The passes of the backbone alone that a match needs."""
        with torch.no_grad():
            self.plain.backbone(self.images())

    def network_passes(self) -> None:
        """The bare passes of the backbone and of both heads: a match without aligning one by the other, and warp."""
        with torch.no_grad():
            both = Levels.of(self.network.backbone, self.images())
            fixed = both.map(lambda tensor: tensor.chunk(2)[0])
            moving = both.map(lambda tensor: tensor.chunk(2)[1])
            matching: Any = self.network.matching_head
            matching.global_matching(fixed, moving)
            matching.local_matching(fixed, moving, None)


ACTIONS = ("step", "backbone", "own_backbone", "match", "passes", "network_passes")
"""Of :class:`Training`, whose times are compared."""

PRODUCT = 2048
"""Edge of the square matrices whose product shows what the machine computes at best."""


def operations(action: Callable[[], Any]) -> int:
    """Floating-point operations of the convolutions and products of an action."""
    with FlopCounterMode(display=False) as counter:
        action()
    return counter.get_total_flops()


def sliding_window(backbone: UNetBackbone, size: int, repeats: int) -> float:
    """
    Time of a child's sliding-window inference over that of the bare passes of the same windows.

    Args:
        backbone: of the child's network.
        size: edge of a window; the volume's is one and a half of it.
        repeats: rounds, whose medians are taken.
    """
    child = ConfigParser()
    child.read_config(str(CHILD / "configs" / "inference.json"))
    child.update({"patch_size": [size] * 3})
    inferer = child.get_parsed_content("inferer")
    network = SegmentationNetwork(backbone, len(child["classes"]) + 1).eval()
    volume = torch.rand(1, 1, *[size * 3 // 2] * 3, device=next(backbone.parameters()).device)
    windows: list[torch.Tensor] = []

    def remember(window: torch.Tensor) -> torch.Tensor:
        windows.append(window)
        return network(window)

    with torch.no_grad():
        inferer(volume, remember)
        bare = {"sliding": lambda: inferer(volume, network), "bare": lambda: [network(window) for window in windows]}
        times = interleaved(bare, repeats)
    return times["sliding"] / times["bare"]


def waiting(training: Training, steps: int) -> float:
    """Share of the time that steps wait for a loader with one worker, after its first steps."""
    batches = iter(training.loader)
    waited, begun = 0.0, 0.0
    for number in range(steps + 3):
        if number == 3:
            waited, begun = 0.0, time.perf_counter()
        asked = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - asked
        training.trainer.state.iteration += 1
        training.trainer._iteration(training.trainer, batch)
    return waited / (time.perf_counter() - begun)


def measure(
    data: Path, output: Path, features: Sequence[int], size: int, changes: Mapping[str, Any], repeats: int
) -> dict[str, float]:
    """
    All ratios of one network at one volume size.

    Args:
        data: folder of phantoms.
        output: see :class:`Training`.
        features: channels of the levels.
        size: edge of the volume, in voxels.
        changes: what else is changed of the default, for :class:`Training`.
        repeats: rounds, whose medians are taken.

    Returns:
        seconds, bytes and ratios by name.
    """
    settings = {"features": list(features), "spatial_size": [size] * 3, "pixdim": [240 / size] * 3, **changes}
    training = Training(data, output, epoch_length=1000, **settings)
    actions = {name: getattr(training, name) for name in ACTIONS}
    keeping = Training(data, output, epoch_length=1000, activation_checkpointing=False, **settings)
    actions["kept_step"] = keeping.step
    if changes == PAPER and not torch.cuda.is_available():
        actions["restatement"] = training.restatement
    matrix = torch.rand(PRODUCT, PRODUCT, device=training.device)
    actions["product"] = lambda: matrix @ matrix
    result: dict[str, float] = {f"{k}_seconds": v for k, v in interleaved(actions, repeats).items()}
    result["step_over_backbone"] = result["step_seconds"] / result["backbone_seconds"]
    result["step_over_own_backbone"] = result["step_seconds"] / result["own_backbone_seconds"]
    result["step_over_kept_step"] = result["step_seconds"] / result["kept_step_seconds"]
    result["match_over_backbone"] = result["match_seconds"] / result["passes_seconds"]
    result["match_over_network"] = result["match_seconds"] / result["network_passes_seconds"]
    result["step_operations"] = operations(training.step)
    rate = operations(training.backbone) / result["backbone_seconds"]
    result["backbone_over_product_rate"] = rate / (2 * PRODUCT**3 / result["product_seconds"])
    result["window_over_passes"] = sliding_window(training.network.backbone, size, repeats)
    result["step_bytes"] = peak_memory(training.step, training.network)
    if "restatement" in actions:
        result["restatement_over_step"] = result["restatement_seconds"] / result["step_seconds"]
        result["restatement_bytes"] = peak_memory(training.restatement, training.published)
        result["memory_over_restatement"] = result["step_bytes"] / result["restatement_bytes"]
        kept = peak_memory(keeping.step, keeping.network)
        result["kept_memory_over_restatement"] = kept / result["restatement_bytes"]
    loading = Training(data, output, epoch_length=1000, **{**settings, "num_workers": 1})
    result["loader_wait_share"] = waiting(loading, 2 * repeats)
    return result
