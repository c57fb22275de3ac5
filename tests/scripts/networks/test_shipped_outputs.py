# SPDX-License-Identifier: Apache-2.0

"""The shipped weights give the outputs that they gave when they were trained, and a step from them the same losses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser
from scripts.training import ModelLoader
from torch.nn import functional

MODEL = "{}/models/model.pt"
EXPECTED = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))


def smooth_images(count: int, size: tuple[int, ...]) -> list[torch.Tensor]:
    """Noise on a coarse grid, interpolated."""
    images = []
    for seed in range(count):
        coarse = torch.rand(1, 1, 6, 7, 7, generator=torch.Generator().manual_seed(seed))
        images.append(functional.interpolate(coarse, size=size, mode="trilinear", align_corners=True))
    return images


def summary(tensor: torch.Tensor) -> list[float]:
    """Mean, mean square, and four values along the diagonal."""
    flat = tensor.detach().double().flatten()
    places = torch.linspace(0, len(flat) - 1, 6).long()[1:-1]
    return [flat.mean().item(), flat.square().mean().item(), *flat[places].tolist()]


def test_outputs_of_the_shipped_weights(repository):
    parser = ConfigParser()
    bundle = repository / "bundle"
    parser.read_config(str(bundle / "configs" / "inference.json"))
    parser.update({"bundle_root": str(bundle), "device": torch.device("cpu")})
    network = parser.get_parsed_content("network").eval()
    parser.get_parsed_content("checkpointloader")()
    fixed, moving = smooth_images(2, (48, 56, 56))
    with torch.no_grad():
        found = {**network(fixed, moving), "restored": network(fixed)}
    assert found.keys() == EXPECTED["outputs"].keys()
    for name, value in found.items():
        assert summary(value) == pytest.approx(EXPECTED["outputs"][name], rel=0.01, abs=0.02), name


def test_one_step(repository):
    """From the shipped weights, of one pair, as train.json has it: losses, and how far each part is moved."""
    bundle = repository / "bundle"
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "train.json"))
    parser.update({"bundle_root": str(bundle), "device": torch.device("cpu")})
    network, loss, optimizer = (parser.get_parsed_content(name) for name in ("network", "loss", "optimizer"))
    ModelLoader(network, MODEL.format(bundle))()
    before = {name: weight.detach().clone() for name, weight in network.named_parameters()}
    fixed, moving = smooth_images(2, (24, 28, 28))
    terms = loss(network.train()(fixed, moving), torch.cat([fixed, moving], dim=1))
    terms["loss"].backward()
    optimizer.step()
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(EXPECTED["losses"], rel=1e-3)
    moved: dict[str, float] = {}
    norms: dict[str, float] = {}
    for name, weight in network.named_parameters():
        part = ".".join(name.split(".")[:2])
        moved[part] = moved.get(part, 0) + (weight - before[name]).abs().sum().item()
        if weight.grad is not None:  # some describe places only where a map is known
            norms[part] = norms.get(part, 0) + weight.grad.square().sum().item()
    assert moved == pytest.approx(EXPECTED["moved"], rel=0.01)
    assert {part: norm**0.5 for part, norm in norms.items()} == pytest.approx(EXPECTED["gradients"], rel=0.01)
