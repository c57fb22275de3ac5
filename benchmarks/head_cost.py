# SPDX-License-Identifier: Apache-2.0

"""
What the deformable heads cost next to the backbone: ``python benchmarks/head_cost.py [--size D H W]``.

Prints seconds for forward and backward passes, and what is kept for the backward pass, in MB, for one pair of scans.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bundle"))

from scripts.networks import CorrelationHead, DeformableHead, UNetBackbone
from scripts.spatial import grid_sample
from torch.nn import functional


def cost(forward: Callable[[], torch.Tensor], repeats: int) -> tuple[float, float, float]:
    """Fastest forward and backward pass in seconds; MB kept in between."""
    times, kept = [], {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    for _ in range(repeats):
        kept.clear()
        start = time.perf_counter()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = forward().square().mean()
        middle = time.perf_counter()
        megabytes = sum(kept.values()) / 1e6
        loss.backward()
        times.append((middle - start, time.perf_counter() - middle))
    first, second = (min(part) for part in zip(*times, strict=True))
    return first, second, megabytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", nargs=3, type=int, default=[48, 56, 56], help="of the scans, voxels")
    parser.add_argument("--features", nargs="+", type=int, default=[16, 32, 64, 128], help="channels of the U-Net")
    parser.add_argument("--repeats", type=int, default=3, help="of which the fastest counts")
    given = parser.parse_args()
    channels = given.features[0]
    backbone = UNetBackbone(features=given.features)
    backbone.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    images = torch.rand(2, 1, *given.size)
    moving, fixed = (torch.rand(1, channels, *given.size, requires_grad=True) for _ in range(2))
    places = (torch.rand(1, *given.size, 3) * 2 - 1).requires_grad_()
    convolution, correlation = DeformableHead(channels, max(8, channels // 2)), CorrelationHead(channels, channels)
    print(f"{torch.get_num_threads()} threads, {' x '.join(map(str, given.size))}, channels {given.features}")
    print(f"{'':34}{'forward, s':>12}{'backward, s':>12}{'kept, MB':>12}")
    for name, forward in {
        "backbone, both images": lambda: backbone(images)[1],
        "convolution head, one direction": lambda: convolution.field(moving, fixed),
        "correlation head, one direction": lambda: correlation.field(moving, fixed),
        "features sampled": lambda: grid_sample(moving, places, "bilinear", "zeros"),
        "features sampled, by PyTorch alone": lambda: functional.grid_sample(moving, places, align_corners=True),
    }.items():
        print(f"{name:34}" + "".join(f"{value:12.3f}" for value in cost(forward, given.repeats)))


if __name__ == "__main__":
    main()
