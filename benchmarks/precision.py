# SPDX-License-Identifier: Apache-2.0

"""
What ``--bfloat16 True`` gains and costs: ``python benchmarks/precision.py OUT [--size D H W] [--features ...]``.

With either deformable head: time and memory of a step against float32, in turns; after some steps in float32, loss and
gradients of the same pairs from the same weights, and, to compare with, how the gradients of two pairs differ.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch.nn.functional import cosine_similarity

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bundle"))

from benchmark import phantoms, table
from benchmark_cases import Training, interleaved, peak_memory
from scripts.training import BFloat16Inferer

HEADS = {"correlation": ["correlation_head"], "convolution": ["correlation_head", "convolution_head"]}
COLUMNS = {"cosine": "cosine", "norm": "norm / float32's", "pairs": "cosine of two pairs, float32"}


def cosine(first: torch.Tensor, second: torch.Tensor) -> float:
    """Of the angle between two gradients."""
    return float(cosine_similarity(first.double(), second.double(), dim=0))


def gradients(training: Training, batch: dict[str, Any], bfloat16: bool) -> tuple[dict[str, float], dict[str, Any]]:
    """Loss and its terms; the gradient of each part of the network, as one vector."""
    network, loss = training.network, training.trainer.terms_function
    network.train()
    network.zero_grad(set_to_none=True)
    image, moving, clean = (batch[name].to(training.device) for name in ("image", "moving", "label"))
    terms = loss(BFloat16Inferer(bfloat16)(image, network, moving), clean)
    terms["loss"].backward()
    parts: dict[str, list[torch.Tensor]] = {}
    for name, weight in network.named_parameters():
        words = name.split(".")
        parts.setdefault(" ".join(words[: 2 if words[0] == "backbone" else 1]), []).append(weight.grad.flatten())
    losses = {name: float(term.detach()) for name, term in terms.items()}
    return losses, {name: torch.cat(part) for name, part in parts.items()}


def compare(data: Path, out: Path, head: str, size: list[int], features: list[int], steps: int, repeats: int) -> str:
    """
    Args:
        data: folder of phantoms.
        out: see :class:`~benchmark_cases.Training`.
        head: "correlation" or "convolution".
        size: of the volumes, in voxels.
        features: channels of the levels.
        steps: trained in float32 before loss and gradients are looked at.
        repeats: rounds, whose medians are taken.

    Returns:
        tables.
    """
    settings: dict[str, Any] = {
        "overlays": HEADS[head],
        "spatial_size": size,
        "features": features,
        "pixdim": [240 / max(size)] * 3,
    }
    settings |= {"epoch_length": 10000, "learning_rate": 0.001}
    single, half = (Training(data, out, bfloat16=flag, **settings) for flag in (False, True))
    times = interleaved({"float32": single.step, "bfloat16": half.step}, repeats)
    memory = [peak_memory(training.step, training.network) for training in (single, half)]
    for _ in range(steps):
        single.step()
    pairs = [next(single.batches) for _ in range(repeats)]
    exact = [gradients(single, pair, False) for pair in pairs]
    rounded = [gradients(single, pair, True) for pair in pairs]
    both = list(zip(exact, rounded, strict=True))
    neighbours = list(zip(exact, exact[1:] + exact[:1], strict=True))
    rows = {
        part: {
            "cosine": fmean(cosine(a[part], b[part]) for (_, a), (_, b) in both),
            "norm": fmean(float(b[part].norm() / a[part].norm()) for (_, a), (_, b) in both),
            "pairs": fmean(cosine(a[part], b[part]) for (_, a), (_, b) in neighbours),
        }
        for part in exact[0][1]
    }
    differences = {
        name: (max(abs(b[name] - a[name]) for (a, _), (b, _) in both), fmean(a[name] for a, _ in exact))
        for name in exact[0][0]
    }
    ratio = times["bfloat16"] / times["float32"]
    text = [
        f"{head} head, {'x'.join(map(str, size))}, channels {features}",
        f"step: {times['float32']:.3f} s in float32, {times['bfloat16']:.3f} s in bfloat16: {ratio:.2f}; "
        f"memory {memory[1] / memory[0]:.2f} of {memory[0] / 1e6:.0f} MB",
        "largest difference: "
        + ", ".join(f"{k} {most:.1e} of {value:.3f}" for k, (most, value) in differences.items()),
        table(rows, COLUMNS, digits=4),
    ]
    return "\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder, made if missing")
    parser.add_argument("--size", nargs=3, type=int, default=[40, 48, 48], help="of the volumes, voxels")
    parser.add_argument("--features", nargs="+", type=int, default=[16, 32, 64, 128], help="channels of the U-Net")
    parser.add_argument("--steps", type=int, default=50, help="in float32 before gradients are compared")
    parser.add_argument("--repeats", type=int, default=8, help="rounds, whose medians are taken; pairs compared")
    given = parser.parse_args()
    data = phantoms(given.out / "phantoms")
    for head in ("correlation", "convolution"):
        print(compare(data, given.out, head, given.size, given.features, given.steps, given.repeats), flush=True)


if __name__ == "__main__":
    main()
