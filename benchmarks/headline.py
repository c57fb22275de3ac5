# SPDX-License-Identifier: Apache-2.0

"""
The picture at the head of the README: one labelled scan, its labels carried to other people, beside their own.

``python benchmarks/headline.py --data DATA/ixi_brain --out docs/pictures/headline.png --merged_labels coarse_labels``

People are those held back by a training with seed 0; where they are too few, people whose scans it has seen, without
labels, follow, marked by a star, as the labelled scan is. What is given besides, ``--id value``, goes to
``inference.json``.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bundle"))

from comparison.bundle_match import BUNDLE, BundleMatch, options_of
from comparison.scans import Scan, labelled_scans, read_scan_of
from scripts.errors import show_one_line
from scripts.evaluation import described_structures, label_dice
from scripts.evaluation.report.outlines import edges, label_centre
from scripts.files import write_atomically
from scripts.spatial import resample_labels

LARGEST = 400_000
"""Bytes of the picture."""


ORDER = [*range(0, 20, 2), *range(1, 20, 2)]
"""Of the colours of matplotlib's tab20: those that differ most first."""


class Carried(NamedTuple):
    """
    A scan, its own labels, and those carried to it, ``(D, H, W)`` each along RAS; ``dice`` of the two; whether it was
    ``seen`` in training.
    """

    image: np.ndarray
    truth: np.ndarray
    found: np.ndarray
    dice: float
    seen: bool


def along_ras(volume: torch.Tensor, affine: torch.Tensor) -> np.ndarray:
    """``(1, D, H, W)`` with its axes turned and flipped to right, anterior, superior."""
    return nib.orientations.apply_orientation(volume[0].numpy(), nib.io_orientation(affine.numpy()))


def carry(match: BundleMatch, atlas: Scan, scan: Scan, seen: bool) -> Carried:
    """The atlas's labels, as a match writes them, in the scan's own grid."""
    field = match(match.prepare(scan, atlas)).double()
    found = resample_labels(atlas.label, atlas.affine, field, scan.affine).float()
    dice = float(label_dice(found[None], scan.label[None]))
    image, truth, carried = (along_ras(volume, scan.affine) for volume in (scan.image, scan.label, found))
    return Carried(image, truth, carried, dice, seen)


def shown_plane(label: np.ndarray) -> tuple[int, tuple[slice, slice]]:
    """The coronal plane through the smaller half of the structures, and the part of it that is labelled."""
    count = np.bincount(label.astype(int).ravel())
    small = [code for code in range(1, len(count)) if 0 < count[code] <= np.median(count[1:][count[1:] > 0])]
    place = (label_centre(np.isin(label, small)) or [n // 2 for n in label.shape])[1]
    where = np.argwhere(label[:, place] > 0)
    low, high = (where.min(axis=0), where.max(axis=0)) if len(where) else (np.zeros(2), np.array(label.shape)[[0, 2]])
    left, down = (slice(max(0, int(a) - 5), int(b) + 6) for a, b in zip(low, high, strict=True))
    return place, (left, down)


def outlined(image: np.ndarray, label: np.ndarray, like: np.ndarray, enlarged: int = 4) -> np.ndarray:
    """
    A plane with the outlines of the structures in colours, two pixels wide.

    Args:
        image: ``(D, H, W)``.
        label: of the same shape.
        like: label map that says which plane, see :func:`shown_plane`.
        enlarged: pixels a voxel.
    """
    place, part = shown_plane(like)
    low, high = np.percentile(image, (1, 99.5))
    grey = 0.85 * ((image[:, place][part] - low) / max(high - low, 1e-6)).clip(0, 1)
    size = np.ones((enlarged, enlarged))
    shown = np.stack([np.kron(np.rot90(grey), size)] * 3, axis=-1)
    large = np.kron(np.rot90(label[:, place][part]), size).astype(int)
    inner = edges(large)
    for axis in (0, 1):
        for step in (-1, 1):
            inner |= np.roll(edges(large), step, axis) & (large == np.roll(large, step, axis)) & (large > 0)
    shown[inner] = colours_of(large[inner])
    return shown


def colours_of(codes: np.ndarray) -> np.ndarray:
    """Red, green and blue of structures, numbered from 1."""
    return plt.colormaps["tab20"](np.array(ORDER)[(codes - 1) % 20])[..., :3]


def picture(atlas: Carried, carried: list[Carried], names: list[str]) -> Figure:
    """The labelled scan on the left; in two blocks the carried outlines above those of the scans' own label maps."""
    across = -(-len(carried) // 2)
    figure, table = plt.subplots(
        4, across + 1, figsize=(1.75 * (across + 1), 7), layout="constrained", facecolor="white", squeeze=False
    )
    for axes in table.flat:
        axes.axis("off")
    table[0, 0].imshow(outlined(atlas.image, atlas.truth, atlas.truth))
    table[0, 0].set_title("the one labelled scan*", fontsize=9, weight="bold")
    colours = colours_of(np.arange(1, len(names) + 1))
    handles = [
        plt.Line2D([], [], color=colour, linewidth=2, label=name.replace("_", " "))
        for colour, name in zip(colours, names, strict=True)
    ]
    table[1, 0].legend(handles=handles, loc="center", fontsize=7, frameon=False, handlelength=1)
    table[2, 0].text(0.5, 0.5, "* seen in training,\nwithout labels", ha="center", fontsize=7)
    for number, one in enumerate(carried):
        row, column = 2 * (number // across), 1 + number % across
        table[row, column].imshow(outlined(one.image, one.found, one.truth))
        table[row + 1, column].imshow(outlined(one.image, one.truth, one.truth))
        table[row, column].set_title(f"carried, Dice {one.dice:.2f}{'*' * one.seen}", fontsize=9)
        table[row + 1, column].set_title("its own labels", fontsize=9)
    return figure


def save(figure: Figure, path: Path) -> None:
    """As a PNG of few colours, below :data:`LARGEST` bytes: with fewer dots where it has to be."""
    for dots in (130, 110, 90, 70, 50):
        buffer = io.BytesIO()
        figure.savefig(buffer, dpi=dots)
        small = io.BytesIO()
        Image.open(buffer).convert("RGB").quantize(200, Image.Quantize.MAXCOVERAGE).save(small, "PNG", optimize=True)
        if small.tell() < LARGEST:
            break
    write_atomically(path, lambda file: file.write(small.getvalue()))


def main(arguments: list[str] | None = None) -> None:
    """
    Run the command.

    Args:
        arguments: its arguments, those of the process by default.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of labelled scans, with a dataset.json")
    parser.add_argument("--out", type=Path, required=True, help="PNG to write")
    parser.add_argument("--merged_labels", help="entry of dataset.json that merges label codes")
    parser.add_argument("--scans", type=int, default=10, help="scans to carry the labels to, at most")
    given, rest = parser.parse_known_args(arguments)
    options = options_of(rest)
    torch.set_num_threads(1)
    held_back, (first, *seen) = (labelled_scans(given.data, None, part) for part in ("held_back", "choosing"))
    scans = [first, *held_back, *seen][: given.scans + 1]
    structures = described_structures(str(given.data), scans, given.merged_labels)
    atlas, *others = (read_scan_of(scan, structures["groups"]) for scan in scans)
    match = BundleMatch([str(BUNDLE / "configs" / "inference.json")], options)
    carried = []
    for number, scan in enumerate(others):
        carried.append(carry(match, atlas, scan, number >= len(held_back)))
        print(f"{Path(scan.path).name}: Dice {carried[-1].dice:.3f}", flush=True)
    image, label = (along_ras(volume, atlas.affine) for volume in (atlas.image, atlas.label))
    save(picture(Carried(image, label, label, 1.0, True), carried, structures["names"]), given.out)
    print(
        f"written to {given.out}: Dice {np.mean([one.dice for one in carried]):.3f} on {len(carried)} scans", flush=True
    )


if __name__ == "__main__":
    show_one_line()
    main()
