# SPDX-License-Identifier: Apache-2.0

"""Write a trained backbone for use elsewhere: ``python tools/export_backbone.py IN OUT [--format monai]``.

The names of the format "documented" are those of ``UNetBackbone``, which loads the file as it is:

- ``stem``, ``downs.0.convs``, ``downs.1.convs``, ...: the encoder, from full size down (2x2x2 max pooling before each
  of the ``downs``); ``ups.0.convs``, ``ups.1.convs``, ...: the decoder, from the bottleneck up;
- in each ``conv_0`` and ``conv_1``, in order: ``conv.weight`` and ``conv.bias`` of the convolution, ``adn.N.weight``
  and ``adn.N.bias`` of the GroupNorm; then a LeakyReLU of slope 0.2.

The names of the format "monai" are those of ``monai.networks.nets.BasicUNet``, of whose layers only the encoder's are
the same. A network of MONAI's or nnU-Net's that was pre-trained as the backbone (``NetworkBackbone``) is written under
its own names, whatever the format: it loads them strictly.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from command import Parser

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bundle"))

from scripts.errors import InputError
from scripts.files import load_file, save_atomically
from scripts.networks import UNetBackbone, group_norm
from scripts.training import load_weights

MONAI_LEVELS = 5
NETWORK = "network."
"""Before the names of a network that is the backbone as it is."""


def backbone_weights(content: Any, source: Path) -> dict[str, torch.Tensor]:
    """
    The weights of the backbone in a ``model.pt`` or ``checkpoint.pt``, by its names.

    Args:
        content: of the file.
        source: where it comes from, for the message.

    Raises:
        InputError: when it holds none, or something that is no weight.
    """
    if isinstance(content, Mapping) and isinstance(content.get("network"), Mapping):
        content = content["network"]
    if not isinstance(content, Mapping):
        raise InputError(f"{source} holds no state dictionary: pass the model.pt of a training")
    prefix = "backbone."
    weights = {str(name)[len(prefix) :]: value for name, value in content.items() if str(name).startswith(prefix)}
    if not weights:
        raise InputError(f"{source} holds no backbone: pass the model.pt of a training")
    for name, value in weights.items():
        number = isinstance(value, torch.Tensor) and (value.is_floating_point() or name.startswith(NETWORK))
        if not number or not value.isfinite().all():
            raise InputError(f"{source}: {prefix}{name} is no tensor of finite floating-point numbers")
    return weights


def read_backbone(weights: Mapping[str, torch.Tensor], source: Path) -> UNetBackbone:
    """
    The backbone that has these weights.

    Args:
        weights: see :func:`backbone_weights`.
        source: where they come from, for the message.

    Raises:
        InputError: when they are not exactly one whole backbone.
    """
    blocks = ["stem"]
    while f"downs.{len(blocks) - 1}.convs.conv_0.conv.weight" in weights:
        blocks.append(f"downs.{len(blocks) - 1}.convs")
    first = [weights.get(f"{block}.conv_0.conv.weight", torch.empty(0)) for block in blocks]
    if any(weight.dim() not in (4, 5) or not weight.numel() for weight in first):
        raise InputError(f"{source} holds no whole backbone: a level's first kernel is missing, empty or not 2D or 3D")
    backbone = UNetBackbone(first[0].dim() - 2, first[0].shape[1], [len(weight) for weight in first])
    load_weights(backbone, weights, source)
    return backbone


def documented(backbone: UNetBackbone) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The weights by our names, and how to build the network they are of."""
    weights = backbone.state_dict()
    shape = f"spatial_dims={backbone.spatial_dims}, in_channels={backbone.in_channels}, features={backbone.features}"
    return weights, [
        f"written, all {len(weights)}: {', '.join(blocks_of(weights))}",
        f"load into: UNetBackbone({shape})",
    ]


def monai(backbone: UNetBackbone) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The weights that correspond to a ``BasicUNet``'s, by its names; what does not, why; and how to build it."""
    names = {"stem.": "conv_0.", **{f"downs.{k}.": f"down_{k + 1}." for k in range(MONAI_LEVELS - 1)}}
    weights = backbone.state_dict()
    result: dict[str, torch.Tensor] = {}
    deeper: list[str] = []
    decoder: list[str] = []
    for name, value in weights.items():
        block = next((block for block in names if name.startswith(block)), None)
        if block is not None:
            result[names[block] + name.removeprefix(block)] = value
        else:
            (decoder if name.startswith("ups.") else deeper).append(name)
    features = backbone.features[:MONAI_LEVELS]
    groups = [group_norm(channels)[1]["num_groups"] for channels in features]
    report = [
        f"written, {len(result)} of {len(weights)}: {', '.join(blocks_of(result))}",
        f"NOT written, {len(decoder)}: {', '.join(blocks_of(decoder))}: BasicUNet has a trained layer before every "
        "skip (a transposed or a 1x1x1 convolution), which in most levels also halves the channels; ours interpolates",
    ]
    if deeper:
        report.append(f"NOT written, {len(deeper)}: {', '.join(blocks_of(deeper))}: BasicUNet has five levels")
    if len(features) < MONAI_LEVELS:
        lacking = ", ".join(f"down_{k}" for k in range(len(features), MONAI_LEVELS))
        report.append(f"BasicUNet's {lacking} stay at random: this backbone has {len(features)} levels")
    six = (*features, *features[-1:] * (MONAI_LEVELS - len(features)), features[0])
    report.append(
        f"load with strict=False into: BasicUNet(spatial_dims={backbone.spatial_dims}, "
        f"in_channels={backbone.in_channels}, features={six}, act=('leakyrelu', {{'negative_slope': 0.2}}), "
        f"norm=('group', {{'num_groups': {groups[0] if len(set(groups)) == 1 else 1}}}))"
    )
    if len(set(groups)) > 1:
        levels = ["conv_0", *(f"down_{k}" for k in range(1, MONAI_LEVELS))]
        report.append(
            f"then set num_groups of its GroupNorms: {dict(zip(levels, groups, strict=False))}; "
            "BasicUNet takes one number for all levels, and with it the features would differ"
        )
    report.append(f"equal for image sizes that are multiples of {2 ** (len(backbone.features) - 1)}: ours pads others")
    return result, report


def network(weights: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The weights of a :class:`~scripts.networks.NetworkBackbone` by the names of the network in it."""
    own = {name.removeprefix(NETWORK): value for name, value in weights.items()}
    parts = dict.fromkeys(name.split(".")[0] for name in own)
    return own, [
        f"written, all {len(own)}: {', '.join(parts)}",
        "load into: the network of the configuration, as it is; its last layer is still random",
    ]


def blocks_of(names: Sequence[str] | Mapping[str, torch.Tensor]) -> list[str]:
    """The levels that tensors belong to, once each, in order."""
    return list(dict.fromkeys(name.split(".conv")[0] for name in names))


FORMATS = {"documented": documented, "monai": monai}


def convert(content: Any, source: Path, form: str) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Translate a file's content; see :func:`run`."""
    weights = backbone_weights(content, source)
    if any(name.startswith(NETWORK) for name in weights):
        weights, report = network(weights)
    else:
        weights, report = FORMATS[form](read_backbone(weights, source))
    return one_each(weights), report


def one_each(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Contiguous tensors; those that a network has under two names stay one."""
    made: dict[tuple[int, int], torch.Tensor] = {}
    keys = {name: (value.data_ptr(), value.numel()) for name, value in weights.items()}
    return {name: made.setdefault(keys[name], value.contiguous()) for name, value in weights.items()}


def write(weights: Mapping[str, Any], out: Path) -> None:
    """Save a state dictionary completely or not at all; InputError says why it could not be."""
    try:
        save_atomically(dict(weights), out)
    except (InputError, OSError) as error:
        cause = error.__cause__ or error
        reason = getattr(cause, "strerror", None) or str(cause).splitlines()[0]
        raise InputError(f"{out} cannot be written: {reason}") from error


def command_line(prog: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """A command that reads one file of weights and writes another."""
    parser = Parser(prog=prog, description=description, epilog=epilog)
    parser.add_argument("source", metavar="IN", type=Path, help="file to read; code in it is never run")
    parser.add_argument("out", metavar="OUT", type=Path, help="file to write")
    parser.add_argument("--force", action="store_true", help="replace OUT where it exists")
    return parser


def run(prog: str, args: argparse.Namespace, translate: Callable[[Any, Path], tuple[dict[str, Any], list[str]]]) -> int:
    """
    Read IN, translate it, write OUT, print the report.

    Args:
        prog: name of the command, for its error line.
        args: ``source``, ``out`` and ``force``.
        translate: content and name of IN to the weights, or a dictionary that has them as ``network_weights``, and the
            report.

    Returns:
        The exit code: 0, or 1 if IN is refused or OUT cannot be written.
    """
    source, out = args.source, args.out
    try:
        if out.is_dir() or not out.parent.is_dir():
            raise InputError(f"{out} is a folder" if out.is_dir() else f"the folder {out.parent} does not exist")
        if out.exists() and not args.force:
            raise InputError(f"{out} exists: pass another name, or --force to replace it")
        if source.is_dir():
            raise InputError(f"{source} is a folder, not a file of weights")
        weights, report = translate(load_file(source), source)
        if out.exists() and out.samefile(source):
            raise InputError(f"{out} is IN itself: pass another name")
        write(weights, out)
    except InputError as error:
        print(f"{prog}: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{prog}: interrupted", file=sys.stderr)
        return 130
    print(*report, sep="\n")
    tensors = weights.get("network_weights", weights)
    print(f"written: {out} ({len(tensors)} tensors, {sum(value.numel() for value in tensors.values()):,} parameters)")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run the command.

    Args:
        argv: its arguments, those of the process by default.

    Returns:
        The exit code: 0, or 1 (2, by ``SystemExit``, for wrong arguments).
    """
    parser = command_line(
        "export_backbone",
        "Write the backbone of a model.pt alone, as a plain state dictionary.",
        "documented: the names of this bundle's UNetBackbone. monai: those of monai.networks.nets.BasicUNet, for the "
        "layers that are the same in both (the encoder's); the others are listed and left out.",
    )
    parser.add_argument("--format", choices=list(FORMATS), default="documented", help="names (default: documented)")
    args = parser.parse_args(argv)
    return run(parser.prog, args, partial(convert, form=args.format))


if __name__ == "__main__":
    sys.exit(main())
