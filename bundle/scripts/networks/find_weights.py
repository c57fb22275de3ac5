# SPDX-License-Identifier: Apache-2.0
"""Weights in the wrappings that frameworks save them with: found, freed of their prefixes, and told of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError

WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""What DataParallel, DistributedDataParallel, torch.compile, FSDP and checkpointing put into the names of weights."""
NO_WEIGHTS = ("optim", "sched", "scaler", "callbacks", "loops", "hyper_parameters")
"""Parts of a checkpoint in which no weights are looked for."""
AVERAGES = ("ema", "teacher", "swa", "momentum", "key_encoder")
"""Words in the names of copies that run along with the weights; they come second."""


def _plain(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def _parts(
    content: Mapping[Any, Any], where: str = "", depth: int = 9
) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    """Everything in a file that may be a state dictionary, with the keys that lead there."""
    tensors = {str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)}
    if tensors:
        yield where, {_plain(name): value for name, value in tensors.items()}
    for key, value in content.items() if depth else ():
        if isinstance(value, Mapping) and isinstance(key, str) and not key.startswith(NO_WEIGHTS):
            yield from _parts(value, f"{where}.{key}".strip("."), depth - 1)


def find_weights(content: Any, wanted: Mapping[str, torch.Tensor], source: str | Path) -> dict[str, torch.Tensor]:
    """
    The weights for a network, from a file of whatever saved them: a plain state dictionary; one under ``network``,
    ``state_dict``, ``model``, ``network_weights`` (nnU-Net, nnssl) or another key; with ``module.`` or ``_orig_mod.``
    in its names, or a prefix before them all, such as Lightning's ``model.`` or ``backbone.`` of a larger network. Says
    where they were found and how many fit, unless it is a file of this project's own.

    Args:
        content: of the file.
        wanted: state dictionary of the network to fill.
        source: the file's path, for messages.

    Returns:
        the weights by the network's names; those that the network does not have, or has in another shape, are among
        them (see :func:`~scripts.networks.load_weights`).

    Raises:
        InputError: for a file without weights, or none of whose names is the network's.
    """
    if not isinstance(content, Mapping):
        raise InputError(f"{source} is not a state dictionary: pass the model.pt of a pre-training")
    best: tuple[int, int, int] | None = None
    alike: dict[str, int] = {}
    found: tuple[str, str, dict[str, torch.Tensor]] = ("", "", {})
    for where, weights in _parts(content):
        for prefix, fitting in _prefixes(weights, wanted).items():
            average = any(word in f"{where}.{prefix}".lower().replace(".", "_").split("_") for word in AVERAGES)
            rank = (fitting, -average, -len(prefix))
            alike[where] = max(fitting, alike.get(where, 0))
            if best is None or rank > best:
                best, found = rank, (where, prefix, weights)
    where, prefix, weights = found
    if best is None:
        names = [name for _, part in _parts(content) for name in part]
        shown = f"such as {names[0]}" if names else "none at all"
        raise InputError(
            f"{source} holds no weights of this network: its names are {shown}, wanted are such as "
            f"{next(iter(wanted))}; pass the model.pt of a pre-training"
        )
    taken = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    wrapped = any(_plain(str(name)) != name for name in content)
    others = [f"'{other}'" for other, fitting in alike.items() if fitting == best[0] and other != where]
    if others or wrapped or where not in ("", "network") or prefix not in ("", "backbone."):  # no own file
        under = f" under '{where}'" if where else ""
        begin = f" of names that begin with '{prefix}'" if prefix else ""
        further = len(weights) - len(taken)
        print(
            f"{source}: weights{under}{begin}; {best[0]} of the network's {len(wanted)} tensors fit"
            + (f", {further} others of the file are not used" if further else "")
            + (f"; as many under {' and '.join(others)} are not used: save alone what you mean" if others else ""),
            flush=True,
        )
    return taken


def _prefixes(weights: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> Counter[str]:
    """How many tensors fit in name and shape, by what stands before the network's own names."""
    by_end: dict[str, list[str]] = {}
    for name in wanted:
        by_end.setdefault(".".join(name.split(".")[-2:]), []).append(name)
    counts: Counter[str] = Counter()
    for name, value in weights.items():
        for own in by_end.get(".".join(name.split(".")[-2:]), ()):
            prefix = name[: len(name) - len(own)]
            if name.endswith(own) and (not prefix or prefix.endswith(".")):
                counts[prefix] += value.shape == wanted[own].shape
    return counts
