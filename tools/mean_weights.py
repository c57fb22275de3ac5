# SPDX-License-Identifier: Apache-2.0
"""The mean of weights of one network, or weights with the norms of a new one.

``python tools/mean_weights.py MODEL [MODEL ...] --out FILE``: the mean of trainings that went on from each other often
reads better than each of them (Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022).
``--new_norms`` first gives the convolutions before a normalisation the norms that they have in a new network of
``--config_file``, seed 0, which changes no output and lets a further training move them as it would a new network's.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import reduce
from operator import add
from pathlib import Path

import torch
from command import Parser, command
from monai.bundle import ConfigParser
from scripts.errors import InputError
from scripts.files import save_atomically
from scripts.networks.weight_norms import scale_weights, weight_norms
from scripts.training import start_from

BUNDLE = Path(__file__).resolve().parents[1] / "bundle"
ALIKE = 0.5
"""Cosine of the weights of two trainings from which on a mean is made: 0.87 where one went on from the other for 6500
steps, 0.3 where both began at random."""


def weights_of(model: Path, configs: Sequence[Path], new_norms: bool) -> dict[str, torch.Tensor]:
    """
    Args:
        model: a ``model.pt`` or ``checkpoint.pt``.
        configs: of a training, one on top of the other; their ``network_def`` is the network.
        new_norms: give its convolutions the norms of a new network.

    Returns:
        all of the network's weights, on the CPU.

    Raises:
        InputError: when the file cannot be read or is not of that network.
    """
    parser = ConfigParser()
    parser.read_config([str(path) for path in configs])
    parser["bundle_root"] = str(BUNDLE)
    torch.manual_seed(0)
    network = parser.get_parsed_content("network_def")
    norms = weight_norms(network)
    start_from(network, str(model))
    if new_norms:
        scale_weights(network, norms)
        print(f"{model}: {len(norms)} convolutions, those before a GroupNorm, have the norms of a new network")
    return dict(network.state_dict())


def check_alike(found: Sequence[dict[str, torch.Tensor]], models: Sequence[Path]) -> None:
    """
    Refuse weights of trainings that did not go on from each other: the mean of their channels would mean nothing.

    Args:
        found: weights.
        models: their files, for the message.

    Raises:
        InputError: naming the first two of which that is so.
    """
    first, *others = (torch.cat([value.double().flatten() for value in weights.values()]) for weights in found)
    for model, other in zip(models[1:], others, strict=True):
        cosine = float(torch.nn.functional.cosine_similarity(first, other, dim=0))
        if cosine < ALIKE:
            raise InputError(
                f"{model} and {models[0]} did not go on from each other (cosine of their weights {cosine:.2f}, wanted "
                f"{ALIKE} or more): give models of one training and of those with --pretrained from it"
            )


def mean_of(found: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """
    Args:
        found: weights of one network.

    Returns:
        the mean of each; names of one tensor in the network (a decoder that holds its encoder) share one again, or the
        file would hold it as often.
    """
    means: dict[int, torch.Tensor] = {}
    for name, value in found[0].items():
        if value.is_floating_point() and value.data_ptr() not in means:
            means[value.data_ptr()] = reduce(add, (weights[name] for weights in found)) / len(found)
    return {name: means.get(value.data_ptr(), value) for name, value in found[0].items()}


@command("mean_weights")
def main(argv: Sequence[str] | None = None) -> None:
    """See ``--help``."""
    parser = Parser(prog="mean_weights", description=__doc__.splitlines()[0])
    parser.add_argument("models", metavar="MODEL", nargs="+", type=Path, help="model.pt or checkpoint.pt of a training")
    parser.add_argument("--out", type=Path, required=True, help="the file to write")
    parser.add_argument("--new_norms", action="store_true", help="with the norms of a new network's convolutions")
    default = [BUNDLE / "configs" / "train.json"]
    parser.add_argument("--config_file", nargs="+", type=Path, default=default, help="of the training: train.json, ...")
    args = parser.parse_args(argv)
    for config in args.config_file:
        if not config.is_file():
            parser.error(f"{config} does not exist: give the train.json of the training, or leave --config_file out")
    if not args.out.parent.is_dir():
        parser.error(f"the folder {args.out.parent} does not exist: make it, or give another --out")
    if args.out.resolve() in (model.resolve() for model in args.models):
        parser.error(f"{args.out} is one of the weights to read, and would be lost: give another --out")
    found = [weights_of(model, args.config_file, args.new_norms) for model in args.models]
    check_alike(found, args.models)
    save_atomically(mean_of(found), args.out)
    print(f"the mean of {len(found)}: {args.out}" if len(found) > 1 else f"written to {args.out}")


if __name__ == "__main__":
    sys.exit(main())
