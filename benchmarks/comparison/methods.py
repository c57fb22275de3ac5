# SPDX-License-Identifier: Apache-2.0

"""What is compared: each method by its name, left out where its package is missing."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from scripts.errors import InputError

from .bundle_match import BundleMatch, Pair
from .convex_adam import ConvexAdam
from .registrations import ants_syn, greedy

Match = Callable[[Pair], torch.Tensor]
"""A pair, read and prepared, to the field at the fixed scan's own voxels, ``(3, D, H, W)`` in millimetres RAS."""

PACKAGES = {"greedy": "picsl_greedy", "ants": "ants", "convexadam": "convexAdam"}
"""What a method needs, by the beginning of its name."""
DEFAULT = (
    *("before", "ours_affine", "ours", "ours_refined", "greedy_affine", "greedy", "greedy_weighted"),
    *("ants", "convexadam_mind", "convexadam_ours"),
)


class Refine(Protocol):
    """Makes a match of this bundle's with other options."""

    def __call__(self, **options: object) -> BundleMatch: ...


def centres(pair: Pair) -> torch.Tensor:
    """The scans' centres laid upon each other."""
    sizes = [torch.tensor([*scan.image.shape[1:]]).double() for scan in pair.scans]
    middles = [
        scan.affine[:3] @ torch.cat([(n - 1) / 2, n.new_ones(1)]) for scan, n in zip(pair.scans, sizes, strict=True)
    ]
    return (middles[1] - middles[0]).reshape(3, 1, 1, 1).repeat(1, *pair.fixed.image.shape[1:])


def make_methods(names: Sequence[str], make: Refine, refine: int, grid: str) -> dict[str, Match]:
    """
    The methods that are there.

    Args:
        names: of :data:`DEFAULT`.
        make: makes this bundle's match.
        refine: steps of the refinement of "ours_refined"; 0 leaves that out.
        grid: "own" gives greedy and ANTs the scans as they are, "model" as they are prepared for this bundle's network.

    Raises:
        InputError: for a name that no method has.
    """
    ours = make(refine=0)
    engine = ConvexAdam(make(refine=0, finest=1.0))
    known: dict[str, Match] = {
        "before": centres,
        "ours_affine": ours.affine,
        "ours": ours,
        "ours_refined": make(refine=refine),
        "greedy_affine": lambda pair: greedy(pair, grid, deformable=None),
        "greedy": lambda pair: greedy(pair, grid),
        "greedy_weighted": lambda pair: greedy(pair, grid, deformable="-m WNCC 2x2x2 -n 100x100x50"),
        "ants": lambda pair: ants_syn(pair, grid),
        "convexadam_mind": engine.with_mind,
        "convexadam_ours": engine.with_ours,
    }
    found: dict[str, Match] = {}
    for name in names:
        if name not in known:
            raise InputError(f"there is no method '{name}': {', '.join(known)}")
        package = PACKAGES.get(name.split("_")[0])
        if package and importlib.util.find_spec(package) is None:
            print(f"left out: {name}, which needs {package}; make compare makes an environment that has it", flush=True)
        elif name == "ours_refined" and not refine:
            print(f"left out: {name}, which needs steps: --refine 20", flush=True)
        else:
            found[name] = known[name]
    return found
