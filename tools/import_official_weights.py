# SPDX-License-Identifier: Apache-2.0

"""Read the first authors' released weights into this bundle: ``python tools/import_official_weights.py IN OUT``.

Their U-Net and this bundle's are the same function: skips are concatenated before the up-sampled features in both,
GroupNorm has a group per 8 channels, LeakyReLU slopes by 0.2, images are padded alike. Their restoration head is ours
too. Their two matching heads are not, see ``LEFT_OUT``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from export_backbone import command_line, run
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bundle"))

from scripts.errors import InputError
from scripts.networks import AffineHead, DeformableHead, RestorationHead, UNetBackbone

WRAPPINGS = ("state_dict", "model_state_dict", "model", "network", "net", "weights")
LEFT_OUT = {
    "affine head": "it clamps its numbers where ours has a hyperbolic tangent, its translation is in other units, and "
    "the authors' training gave it no gradient",
    "deformable head": "its field is sampled by another convention (up to half a voxel apart at the border), and it "
    "works on features aligned by the affine head",
}
"""Heads of which no weight is written, and why."""


def double_conv(theirs: str, ours: str) -> dict[str, str]:
    """Their names of a double convolution's tensors, to ours."""
    layers = {0: "conv_0.conv", 1: "conv_0.adn.N", 3: "conv_1.conv", 4: "conv_1.adn.N"}
    return {
        f"{theirs}.double_conv.{index}.{kind}": f"{ours}.{layer}.{kind}"
        for index, layer in layers.items()
        for kind in ("weight", "bias")
    }


def both(layers: Mapping[str, str]) -> dict[str, str]:
    """The names of the layers' weights and biases."""
    return {f"{theirs}.{kind}": f"{ours}.{kind}" for theirs, ours in layers.items() for kind in ("weight", "bias")}


ENCODER = {"inc": "stem", **{f"down{k + 1}.maxpool_conv.1": f"downs.{k}.convs" for k in range(4)}}
DECODER = {f"up{k + 1}.conv": f"ups.{k}.convs" for k in range(4)}
UNET = {theirs: ours for block in {**ENCODER, **DECODER}.items() for theirs, ours in double_conv(*block).items()}
AFFINE = double_conv("f_conv", "conv") | both({f"fc_{name}": f"fc_{name}" for name in ("rot", "scl", "shear", "trans")})
DEFORMABLE = double_conv("sp_conv", "conv") | both({"out_flow": "displacement"})
RESTORATION = both({"res_conv.0": "0.conv", "res_conv.1": "0.adn.N", "res_conv.3": "1"})
HEADS = {**AFFINE, **DEFORMABLE, **RESTORATION}


def plain_names(content: Any, source: Path) -> dict[str, torch.Tensor]:
    """
    The tensors under their names in the authors' network, those of the U-Net without "unet.".

    Args:
        content: of the file.
        source: where it comes from, for the message.

    Raises:
        InputError: when it is no state dictionary, wrapped or not.
    """
    if isinstance(content, Mapping):
        content = next((content[key] for key in WRAPPINGS if isinstance(content.get(key), Mapping)), content)
    if not isinstance(content, Mapping) or not content:
        raise InputError(f"{source} is not a checkpoint: it holds no state dictionary")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise InputError(f"{source} is not a checkpoint: its entry {str(name)!r} is not a named tensor")
    weights = dict(content)
    while all(name.startswith("module.") for name in weights):
        weights = {name.removeprefix("module."): value for name, value in weights.items()}
    if not any(name in UNET for name in weights):
        weights = {name.removeprefix("unet."): value for name, value in weights.items()}
    return weights


def check_names(weights: Mapping[str, torch.Tensor], source: Path) -> bool:
    """
    Refuse what is not the whole network or the whole U-Net.

    Returns:
        whether the heads are there.
    """
    known = {**UNET, **HEADS}
    if not set(weights) & set(known):
        raise InputError(f"{source} is not of the authors' release: it begins with {next(iter(weights))!r}")
    unknown = [name for name in weights if name not in known]
    if unknown:
        raise InputError(f"{source} holds {len(unknown)} tensors that the release does not have ({unknown[0]})")
    whole = any(name in HEADS for name in weights)
    wanted = known if whole else UNET
    missing = [name for name in wanted if name not in weights]
    if missing:
        raise InputError(
            f"{source} is not complete: {len(missing)} of {len(wanted)} tensors are missing ({missing[0]})"
        )
    return whole


def expected_shapes(weights: Mapping[str, torch.Tensor], whole: bool, source: Path) -> dict[str, torch.Size]:
    """The shapes that all tensors must have for the channels that the first convolutions of the file have."""
    first = weights["inc.double_conv.0.weight"]
    dims = first.dim() - 2
    if dims not in (2, 3):
        raise InputError(f"{source}: inc.double_conv.0.weight is of shape {list(first.shape)}, not a 2D or 3D kernel")

    def channels(name: str) -> int:
        shape = list(weights[f"{name}.weight"].shape)
        if not shape or min(shape) < 1:
            raise InputError(f"{source}: {name}.weight is of shape {shape}, which is no layer's")
        return shape[0]

    features = [channels(f"{name}.double_conv.0") for name in ENCODER]
    with torch.device("meta"):
        parts: list[tuple[dict[str, str], nn.Module]] = [(UNET, UNetBackbone(dims, first.shape[1], features))]
        if whole:
            affine = AffineHead(features[-1], channels("f_conv.double_conv.0"), dims)
            for name, count in zip(("rot", "scl", "shear", "trans"), affine.counts, strict=True):
                affine.add_module(f"fc_{name}", nn.Linear(affine.parameters_of_map.in_features, count))
            restoration = RestorationHead(features[0], channels("res_conv.3"), channels("res_conv.0"), dims)
            deformable = DeformableHead(features[0], channels("sp_conv.double_conv.0"), dims)
            parts += [(AFFINE, affine), (DEFORMABLE, deformable), (RESTORATION, restoration)]
    return {theirs: module.state_dict()[ours].shape for names, module in parts for theirs, ours in names.items()}


def convert(content: Any, source: Path) -> tuple[dict[str, torch.Tensor], list[str]]:
    """
    Translate a checkpoint.

    Args:
        content: what the authors' file holds.
        source: where it comes from, for messages.

    Returns:
        The state dictionary of our backbone and restoration head, and the lines of the report.

    Raises:
        InputError: for anything but the whole U-Net or the whole network.
    """
    weights = plain_names(content, source)
    whole = check_names(weights, source)
    for name, shape in expected_shapes(weights, whole, source).items():
        if weights[name].shape != shape:
            raise InputError(f"{source}: {name} is of shape {list(weights[name].shape)}, not {list(shape)}")
        if not weights[name].is_floating_point() or not weights[name].isfinite().all():
            raise InputError(f"{source}: {name} holds values that are no finite floating-point numbers")
    first = weights["inc.double_conv.0.weight"]
    channels = "-".join(str(len(weights[f"{name}.double_conv.0.bias"])) for name in ENCODER)
    report = [f"{first.dim() - 2}D U-Net, {first.shape[1]} input channel(s), levels of {channels} channels"]
    result: dict[str, torch.Tensor] = {}
    parts = [("backbone", UNET, True)]
    if whole:
        parts += [("affine head", AFFINE, False), ("deformable head", DEFORMABLE, False)]
        parts += [("restoration head", RESTORATION, True)]
    for part, names, taken in parts:
        numbers = sum(weights[name].numel() for name in names)
        report.append(f"{part}: {len(names)} of {len(names)} tensors matched, {numbers:,} parameters")
        if taken:
            prefix = part.replace(" ", "_")
            result |= {f"{prefix}.{ours}": weights[theirs].float().contiguous() for theirs, ours in names.items()}
        else:
            report[-1] += f": LEFT OUT, {LEFT_OUT[part]}"
    if not whole:
        report.append("heads: none in the file")
    return result, report


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run the command.

    Args:
        argv: its arguments, those of the process by default.

    Returns:
        The exit code: 0, or 1 (2, by ``SystemExit``, for wrong arguments).
    """
    parser = command_line(
        "import_official_weights",
        "Translate a checkpoint of the first authors' GVSL release, the whole network or its U-Net alone, to this "
        "bundle's names: the backbone, and the restoration head where it is there.",
        "All tensors are found, of the right shape and finite, or nothing is written. Use OUT as --pretrained.",
    )
    return run(parser.prog, parser.parse_args(argv), convert)


if __name__ == "__main__":
    sys.exit(main())
