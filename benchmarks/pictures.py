# SPDX-License-Identifier: Apache-2.0

"""
Pictures for the documents: ``python benchmarks/pictures.py places --data FOLDER --out places.png``,
``python benchmarks/pictures.py pairs --comparison FOLDER --data FOLDER --out pairs.png`` and
``python benchmarks/pictures.py dice --comparison FOLDER --out dice.png``.

``places``: a place of one person, the middle of a structure, and how alike every place of another person is to it, on
the three levels of the global matching; sets and structures are those of ``benchmarks/robustness.json``. ``pairs``: the
best, the median and the worst match of a comparison (``comparison.csv`` of ``benchmarks/compare.py``) with the contours
of both scans' structures, before and after. ``dice``: the numbers of a comparison, drawn again. In place of its folder
a comparison's ``.csv`` can be named. What is given besides, ``--id value``, goes to
``inference.json``.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from monai.data import MetaTensor
from monai.transforms import Orientation
from PIL import Image
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bundle"))

from comparison.bundle_match import BUNDLE, BundleMatch, Pair, options_of
from comparison.matched_sets import PLAN, MatchedSet
from comparison.methods import centres
from comparison.scans import PARTS, Scan, labelled_scans, read_scan_of
from comparison.scoring import MEASURES, score
from comparison.tables import figure as dice_figure
from comparison.tables import title_of
from scripts.data import read_json
from scripts.data.tables import read_own
from scripts.errors import InputError, show_one_line
from scripts.evaluation import common_structures, described_structures
from scripts.evaluation.report import label_centre, outline_pictures
from scripts.networks import Levels
from scripts.plots import PLANES, plane
from scripts.spatial import from_level, resample_labels, sample, tissue, to_level, transform_points

STRIDES = {4: "a quarter of the size", 2: "half the size", 1: "full size"}


def middle(scan: Scan, prepared: MetaTensor) -> torch.Tensor:
    """The middle of a scan's structure in voxels of its prepared image, ``(3,)``."""
    voxel = scan.label[0].nonzero().double().mean(dim=0)
    world = transform_points(scan.affine, voxel[:, None])
    return transform_points(torch.linalg.inv(prepared.affine[0].double()), world)[:, 0]


@torch.no_grad()
def similarities(network: Any, pair: Pair, place: torch.Tensor) -> dict[int, torch.Tensor]:
    """
    How alike the places of the moving image are to a place of the fixed one.

    Args:
        network: with global matching by places.
        pair: prepared.
        place: ``(3,)`` in voxels of the fixed image.

    Returns:
        by stride of the level ``(D, H, W)``, -1..1; 0 where the moving image shows no tissue.
    """
    head, size = network.matching_head.global_matching.places, pair.batch["image"].shape[2:]
    levels = [Levels.of(network.backbone, torch.as_tensor(pair.batch[key])) for key in ("image", "moving")]
    fixed, moving = (head(of) for of in levels)
    found = {}
    for stride in (stride for stride in STRIDES if stride in head.strides):
        one, other = (functional.normalize(of[stride].float(), dim=1) for of in (fixed, moving))
        where = to_level(place.float().reshape(1, 3, 1, 1, 1), size, one.shape[2:], stride)
        asked = functional.normalize(sample(one, where, padding_mode="border"), dim=1)
        alike = from_level((asked * other).sum(dim=1, keepdim=True), size, stride)
        found[stride] = (alike * tissue(levels[1].image))[0, 0]
    return found


def draw_places(data: Path, plan: Mapping[str, Any], options: Mapping[str, Any], part: str, number: int) -> Figure:
    """A row a set: the place, and on each level how alike the other person's places are."""
    chosen = {name: described for name, described in plan["sets"].items() if "place" in described}
    figure = Figure(figsize=(11, 2.9 * len(chosen)), layout="constrained")
    rows = figure.subplots(len(chosen), 1 + len(STRIDES), squeeze=False)
    for axes, (name, described) in zip(rows, chosen.items(), strict=True):
        asked = described["place"]
        one = MatchedSet.of(name, plan, data, part, options)
        scans = one.pairs(number, [[asked["code"]]])[-1]
        pair = one.match.prepare(*scans)
        fixed, moving = pair.batch["image"], pair.batch["moving"]
        spacing = fixed.affine[0][:3, :3].norm(dim=0)
        place, truth = middle(scans[0], fixed), middle(scans[1], moving)
        axis = PLANES.index(asked["plane"])
        cut(axes[0], fixed, place, axis, spacing)
        axes[0].set_title(f"{name}\n{asked['name']}, {asked['plane']}", fontsize=9)
        for axes_, (stride, map_) in zip(axes[1:], similarities(one.match.network, pair, place).items(), strict=False):
            best = torch.tensor(np.unravel_index(int(map_.argmax()), map_.shape)).double()
            apart = float(((best - truth) * spacing).norm())
            cut(axes_, moving, truth, axis, spacing, map_.clamp(min=0))
            axes_.set_title(f"{STRIDES[stride]}\nmost alike {apart:.0f} mm from its middle", fontsize=9)
    figure.suptitle("A place of one person (cross), and how alike all places of another are to it (cross: the truth)")
    return figure


def cut(
    axes: Any,
    image: torch.Tensor,
    place: torch.Tensor,
    axis: int,
    spacing: torch.Tensor,
    shown: torch.Tensor | None = None,
) -> None:
    """A plane through a place, with a cross there, and what is laid over it."""
    index = int(place[axis].round().clamp(0, image.shape[2 + axis] - 1))
    across, up = (other for other in range(3) if other != axis)
    grey = plane(torch.as_tensor(image)[0, 0].numpy(), axis, index)
    aspect = float(spacing[up] / spacing[across])
    axes.imshow(grey, cmap="gray", vmin=0, vmax=1, aspect=aspect)
    if shown is not None:
        laid = plane(shown.numpy(), axis, index)
        axes.imshow(laid, cmap="inferno", vmin=0, vmax=1, alpha=0.7 * laid, aspect=aspect, interpolation="bilinear")
    size = image.shape[2:]
    axes.plot(
        size[across] - 1 - float(place[across]), size[up] - 1 - float(place[up]), "+", color="#40e0ff", markersize=12
    )
    axes.set_axis_off()


def compared(place: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """
    What a comparison has written.

    Args:
        place: its folder, or its ``.csv``, beside which lies its ``.json`` (without one it had no options).

    Returns:
        what it is of, and its matches.
    """
    table = place if place.suffix == ".csv" else place / "comparison.csv"
    described = table.with_suffix(".json")
    about = read_json(described) if described.is_file() else {"options": {}, "data": table.stem}
    numbers = (*MEASURES, "cpu_seconds", "voxels", "failed")
    rows = [{k: float(v or "nan") if k in numbers else v for k, v in row.items()} for row in read_own(table, "method")]
    if not rows:
        raise InputError(f"{table} has no matches: pass the folder that benchmarks/compare.py has written")
    return about, rows


def upright(volume: torch.Tensor, affine: torch.Tensor) -> np.ndarray:
    """A volume ``(1, D, H, W)`` with axes towards right, anterior and superior, ``(D, H, W)``."""
    return Orientation(axcodes="RAS", labels=None)(MetaTensor(volume, affine=affine))[0].numpy()


def draw_pairs(place: Path, data: Path, method: str, options: Mapping[str, Any], configs: Sequence[str]) -> Figure:
    """A row each for the best, the median and the worst match: three planes before and after it."""
    about, matches = compared(place)
    rows = sorted((row for row in matches if row["method"] == method), key=lambda row: -row["dice"])
    if not rows:
        raise InputError(f"{place} has no match by '{method}': name another one with --method")
    chosen = {"best": rows[0], "median": rows[len(rows) // 2], "worst": rows[-1]}
    scans = labelled_scans(data, None, "all")
    structures = described_structures(str(data), scans, options.get("merged_labels"))
    paths = {Path(scan["image"]).name: scan for scan in scans}
    partial = bool(options.get("partial_labels", about.get("partial_labels")))
    own = {key: value for key, value in options.items() if key not in ("merged_labels", "partial_labels")}
    ids = {**about["options"], **own}
    match = BundleMatch([str(BUNDLE / "configs" / "inference.json"), *configs], ids)
    figure = Figure(figsize=(12, 2.5 * len(chosen) + 0.4), layout="constrained")
    grid = figure.subplots(len(chosen), 6, squeeze=False)
    for axes, (name, row) in zip(grid, chosen.items(), strict=True):
        fixed, moving = (read_scan_of(paths[row[end]], structures["groups"]) for end in ("fixed", "moving"))
        if partial:
            fixed.label, moving.label = common_structures(fixed.label, moving.label)
        pair = match.prepare(fixed, moving)
        spacing = fixed.affine[:3, :3].norm(dim=0).tolist()
        low, high = (float(v) for v in np.percentile(fixed.image, [0.5, 99.5]))
        grey, label = (upright(of, fixed.affine) for of in ((fixed.image - low) / max(high - low, 1e-6), fixed.label))
        spacing = [spacing[axis] for axis in fixed.affine[:3, :3].abs().argmax(dim=1).tolist()]
        for first, field in ((0, centres(pair)), (3, match(pair))):
            carried = resample_labels(moving.label, moving.affine, field.double(), fixed.affine)
            dice = score(field, fixed, moving, len(structures["names"]))["dice"]
            pictures = outline_pictures(
                grey.clip(0, 1), label, upright(carried, fixed.affine), spacing, 300, label_centre(label)
            )
            for number, (title, picture) in enumerate(pictures.items(), start=first):
                axes[number].imshow(picture)
                axes[number].set_axis_off()
                axes[number].set_title(title, fontsize=8)
            when = "after" if first else f"{name}, before"
            axes[first].set_title(f"{when}: Dice {dice:.3f}\n{next(iter(pictures))}", fontsize=8)
    figure.suptitle(
        "Contours on the fixed scan: its own (green), the moving scan's (magenta), both (white)", fontsize=10
    )
    return figure


def save_picture(figure: Figure, out: Path) -> None:
    """Write a figure as a PNG of 255 colours, a third of the size."""
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=85)
    Image.open(drawn).convert("RGB").quantize(255).save(out, optimize=True)
    print(f"written to {out}", flush=True)


def main(arguments: list[str] | None = None) -> None:
    """
    Run the command.

    Args:
        arguments: its arguments, those of the process by default.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("places", "pairs", "dice"))
    parser.add_argument("--data", type=Path, help="places: folder of the sets; pairs: the compared one")
    parser.add_argument("--out", type=Path, required=True, help="the picture")
    parser.add_argument("--plan", type=Path, default=PLAN, help="of places: sets and structures")
    parser.add_argument("--subjects", choices=PARTS, default="held_back", help="of places: which subjects")
    parser.add_argument("--number", type=int, default=1, help="of places: which pair of each set")
    parser.add_argument("--comparison", type=Path, help="of pairs and dice: what benchmarks/compare.py has written")
    parser.add_argument("--method", default="ours", help="of pairs: by which method's Dice they are chosen")
    parser.add_argument("--config_file", nargs="+", default=[], help="of pairs: overlays of inference.json")
    given, rest = parser.parse_known_args(arguments)
    options = options_of(rest)
    torch.set_num_threads(1)
    if given.what != "places" and given.comparison is None:
        raise InputError(f"{given.what} are those of a comparison: pass --comparison FOLDER, by benchmarks/compare.py")
    if given.what != "dice" and given.data is None:
        raise InputError(f"{given.what} are drawn from scans: pass --data FOLDER")
    if given.what == "places":
        figure = draw_places(given.data, read_json(given.plan), options, given.subjects, given.number)
    elif given.what == "dice":
        about, rows = compared(given.comparison)
        figure = dice_figure(rows, title_of(about, rows))
    else:
        figure = draw_pairs(given.comparison, given.data, given.method, options, given.config_file)
    save_picture(figure, given.out)


if __name__ == "__main__":
    show_one_line()
    main()
