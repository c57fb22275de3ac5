# SPDX-License-Identifier: Apache-2.0

"""
The shipped weights give the outputs that they gave when they were trained, and a step from them the same losses.

``python tests/scripts/networks/test_shipped_outputs.py`` writes what is expected anew: after new weights, or
another way of finding the map, alone.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from torch.nn import functional

BUNDLE = Path(__file__).resolve().parents[3] / "bundle"
MODEL = str(BUNDLE / "models" / "model.pt")
FILE = Path(__file__).with_suffix(".json")


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


def outputs() -> dict[str, list[float]]:
    """Of the shipped weights, for a fixed pair: of the network alone, and ``matched``, as a user matches it."""
    parser = ConfigParser()
    parser.read_config(str(BUNDLE / "configs" / "inference.json"))
    parser.update({"bundle_root": str(BUNDLE), "device": torch.device("cpu"), "bfloat16": False})
    network = parser.get_parsed_content("network").eval()
    parser.get_parsed_content("checkpointloader")()
    fixed, moving = smooth_images(2, (48, 56, 56))
    with torch.no_grad():
        found = {**network(fixed, moving), "restored": network(fixed)}
        found["matched"] = parser.get_parsed_content("inferer")(fixed, network, moving)["displacement"]
    return {name: summary(value) for name, value in found.items()}


def batch(known: bool) -> dict[str, Any]:
    """A pair of two people, or two views of one scan, as a training's data loader gives it."""
    from scripts.transforms import RandMatchingViewsd

    image, other = (of[0] for of in smooth_images(2, (28, 32, 32)))
    views = RandMatchingViewsd([24, 28, 28]).set_random_state(0)
    found = views({"image": image, "moving": image if known else other, "same": known})
    found["label"] = torch.cat([found["image"], found["moving"]])
    return {name: value[None] for name, value in found.items() if isinstance(value, torch.Tensor)}


def one_step(known: bool) -> dict[str, dict[str, float]]:
    """
    From the shipped weights, of one pair, by the trainer of ``train.json``: losses, the norm of each part's gradient,
    and how far each part is moved.
    """
    parser = ConfigParser()
    parser.read_config(str(BUNDLE / "configs" / "train.json"))
    parser.update({"bundle_root": str(BUNDLE), "device": torch.device("cpu"), "train#dataloader": [batch(known)]})
    parser.update({"train#handlers": [], "epochs": 1, "clip_norm": 1e6})
    network, trainer = parser.get_parsed_content("network"), parser.get_parsed_content("train#trainer")
    network.load_state_dict(torch.load(MODEL, weights_only=True))
    before = {name: weight.detach().clone() for name, weight in network.named_parameters()}
    torch.manual_seed(0)
    trainer.run()
    moved: dict[str, float] = {}
    norms: dict[str, float] = {}
    for name, weight in network.named_parameters():
        part = ".".join(name.split(".")[:2])
        moved[part] = moved.get(part, 0) + (weight.detach() - before[name]).abs().sum().item()
        if weight.grad is not None:  # some describe places only where a map is known
            norms[part] = norms.get(part, 0) + weight.grad.square().sum().item()
    gradients = {part: norm**0.5 for part, norm in norms.items()}
    return {"losses": trainer.state.output["losses"], "gradients": gradients, "moved": moved}


def expected() -> dict[str, Any]:
    return json.loads(FILE.read_text(encoding="utf-8"))


def test_outputs_of_the_shipped_weights():
    found = outputs()
    assert found.keys() == expected()["outputs"].keys()
    for name, value in found.items():
        assert value == pytest.approx(expected()["outputs"][name], rel=0.01, abs=0.02), name


@pytest.mark.parametrize("pair", ["two people", "known map"])
def test_one_step(pair):
    """Each kind of pair trains its own terms: without a known map no places, with one no matching of two people."""
    found, asked = one_step(pair == "known map"), expected()[pair]
    assert found["losses"] == pytest.approx(asked["losses"], rel=1e-3)
    assert found["moved"] == pytest.approx(asked["moved"], rel=0.01)
    assert found["gradients"] == pytest.approx(asked["gradients"], rel=0.01)
    assert (found["losses"]["places"] > 0) == (pair == "known map")
    assert (found["losses"]["matching"] > 0) == (pair == "two people")


def write() -> None:
    """What the shipped weights give now, lists in one line each."""

    def rounded(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: rounded(each) for name, each in value.items()}
        return [rounded(each) for each in value] if isinstance(value, list) else float(f"{value:.6g}")

    found = {"outputs": outputs(), "two people": one_step(False), "known map": one_step(True)}
    text = json.dumps(rounded(found), indent=4)
    text = re.sub(r"\[[^\[\]]*\]", lambda of: re.sub(r"\s+", " ", of[0]).replace("[ ", "[").replace(" ]", "]"), text)
    FILE.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.path.insert(0, str(BUNDLE))
    write()
