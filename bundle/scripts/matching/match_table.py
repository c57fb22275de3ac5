# SPDX-License-Identifier: Apache-2.0
"""A table of matches: how far each can be trusted, and which a person should look at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor

from ..data.tables import read_own, write_own
from ..losses.local_ncc import LocalNCCLoss
from ..progress import say
from ..spatial.displacement import inside_volume
from ..spatial.scanner_space import transform_points
from ..spatial.tissue import tissue
from ..spatial.warp import compose_affine

TABLE = "matches.csv"
CONFIDENCE = ("agreement", "inliers", "conditioning")
INVERSE_CONSISTENCY = "inverse_consistency_mm"
COLUMNS = ("result", *CONFIDENCE, INVERSE_CONSISTENCY, "mirror_margin", "ncc", "look_at", "tre_mm")
Trusted = Mapping[str, Sequence[float]]
"""By the name of a value of :func:`confidence` the lowest and the highest one of a match that is trusted."""


def there_and_back(image: torch.Tensor, there: torch.Tensor, back: torch.Tensor) -> torch.Tensor:
    """
    How far the tissue of a scan comes to lie from itself by two affine maps.

    Args:
        image: ``(1, C, D, H, W)``.
        there: fixed voxels to moving voxels, ``(1, N, N + 1)``.
        back: moving voxels to fixed voxels.

    Returns:
        ``(N, M)`` in voxels, for M voxels of tissue.
    """
    points = tissue(torch.as_tensor(image))[0, 0].nonzero().T.double()
    return transform_points(compose_affine(back.double(), there.double())[0], points) - points


def confidence(data: dict[str, Any], index: int = 0, spacing: Sequence[float] | None = None) -> dict[str, float]:
    """
    What the global match of a pair says of itself.

    Args:
        data: a batch: ``image`` ``(B, 1, D, H, W)`` with its affine, and ``pred``, see
            :class:`~scripts.networks.GVSL`.
        index: of the pair in the batch.
        spacing: voxel size in millimetres, where the image has lost its affine; None takes the affine's.

    Returns:
        ``agreement``, ``inliers`` and ``conditioning``, and ``inverse_consistency_mm``, how far the tissue of the fixed
        scan comes to lie from itself, there and back by affine maps that are found each by itself: mean in millimetres;
        the same in prepared voxels is ``inverse_consistency_voxels``; ``mirror_margin``, by how much the local NCC is
        higher than with the moving scan mirrored, where that was asked for. Nothing of what the matching head does not
        give, nor how far maps lie apart where no place was matched: both are the identity then.
    """
    pred = data["pred"]
    found = {name: float(pred[name][index]) for name in CONFIDENCE if name in pred}
    if "mirror_margin" in pred:
        found["mirror_margin"] = float(pred["mirror_margin"][index])
    if "backward_affine" in pred and found.get("inliers") != 0:
        matched = "matched_affine" if "matched_affine" in pred else "affine"
        there, back = (pred[name][index : index + 1].cpu() for name in (matched, "backward_affine"))
        image = torch.as_tensor(data["image"])[index : index + 1].cpu()
        n = image.dim() - 2
        apart = there_and_back(image, there, back)
        grid = data["image"].affine[index][:n, :n] if spacing is None else torch.diag(torch.as_tensor(spacing))
        to_millimetres = grid.double().cpu()
        found["inverse_consistency_voxels"] = float(apart.norm(dim=0).mean())
        found[INVERSE_CONSISTENCY] = float((to_millimetres @ apart).norm(dim=0).mean())
    return found


def outside(found: Mapping[str, float], trusted: Trusted) -> str:
    """
    What speaks against a match.

    Args:
        found: see :func:`confidence`.
        trusted: within which bounds a match is trusted.

    Returns:
        each value outside its bounds (or NaN) with the bound, as "agreement 0.41, trusted from 0.72; ..."; nothing
        where there is none.
    """
    said = []
    for name, (low, high) in trusted.items():
        value = found.get(name, low)
        if not low <= value <= high:
            bound = (
                f"from {low:g}" if value < low else f"up to {high:g}" if value > high else f"from {low:g} to {high:g}"
            )
            said.append(f"{name.replace('_', ' ')} {value:.4g}, trusted {bound}")
    return "; ".join(said)


def look_at(found: Mapping[str, float], trusted: Trusted) -> str:
    """
    Whether a person should look at a match.

    Args:
        found: see :func:`confidence`.
        trusted: within which bounds a match is trusted.

    Returns:
        "no" within all that are known, "yes" :func:`outside` one, nothing where none is known.
    """
    known = any(name in found for name in trusted)
    return "" if not known else "yes" if outside(found, trusted) else "no"


def point_out(what: str, row: Mapping[str, str]) -> None:
    """
    Say on the screen, in one line, what a person should look at and why; nothing of what need not be looked at.

    Args:
        what: a match or a result.
        row: of it: ``look_at``, and ``doubts``, why.
    """
    if row["look_at"] == "yes":
        say(f"look at {what}: {row['doubts']}")


def scan_path(image: MetaTensor) -> str:
    """Path of the first scan of a batch."""
    return str(image.meta.get("filename_or_obj", ["a scan"])[0])


def ncc_of(pred: Mapping[str, Any], fixed: torch.Tensor) -> torch.Tensor:
    """
    How alike the fixed image and the warped one are, where that shows the moving image.

    Args:
        pred: of a match: ``warped`` and ``displacement``, on the fixed image's grid.
        fixed: ``(B, 1, D, H, W)``.

    Returns:
        the squared local NCC, ``(B,)``.
    """
    warped, displacement = (torch.as_tensor(pred[name]).detach().float() for name in ("warped", "displacement"))
    return LocalNCCLoss(7).per_image(warped, torch.as_tensor(fixed).to(warped), inside_volume(displacement))


def measure(data: dict[str, Any], trusted: Trusted | None = None) -> dict[str, str]:
    """
    What tells whether a match can be trusted.

    Args:
        data: a batch of one pair: ``image`` ``(1, 1, D, H, W)`` with its affine, and ``pred``, see
            :class:`~scripts.networks.GVSL`.
        trusted: see :func:`look_at`.

    Returns:
        the values of :func:`confidence`, the squared local ``ncc``, whether one should :func:`look_at` it, and the
        ``doubts``: what lies :func:`outside` its bounds, and whether its global map was discarded.
    """
    pred, found, trusted = data["pred"], confidence(data), trusted or {}
    row = {name: f"{value:.4f}" for name, value in found.items()}
    row["ncc"] = f"{float(ncc_of(pred, data['image'])[0]):.4f}"
    return row | doubted(pred, found, trusted)


def doubted(pred: Mapping[str, Any], found: Mapping[str, float], trusted: Trusted) -> dict[str, str]:
    """
    Whether a person should look at a match, and why.

    Args:
        pred: of a batch of one pair, see :class:`~scripts.matching.MatchingInferer`.
        found: see :func:`confidence`.
        trusted: see :func:`look_at`.

    Returns:
        ``look_at`` and ``doubts``: what lies :func:`outside` its bounds, and whether the global map was discarded.
    """
    doubts = outside(found, trusted)
    if "shifted" in pred and bool(pred["shifted"].any()):
        doubts = "; ".join(
            filter(None, [doubts, "no global match: the scans are laid upon each other by a shift alone"])
        )
    return {"look_at": "yes" if doubts else look_at(found, trusted), "doubts": doubts}


def add_row(folder: Path, result: str, row: dict[str, str]) -> None:
    """Put a match into ``matches.csv`` of a folder, in place of an earlier one of the same result."""
    put_rows(folder / TABLE, COLUMNS, result, [row])


def put_rows(
    path: Path,
    columns: Sequence[str],
    result: str,
    rows: Sequence[dict[str, str]],
    order: Callable[[dict[str, str]], Any] | None = None,
) -> None:
    """
    Put what is said of a match into a table, in place of what an earlier match of the same result left there.

    Args:
        path: of the table.
        columns: of it; "result" is the first.
        result: name of the match.
        rows: of it.
        order: what all lines are sorted by; None puts the new ones last.
    """
    kept = [old for old in read_rows(path) if old.get("result") != result]
    listed: list[dict[str, str]] = [*kept, *({"result": result, **row} for row in rows)]
    if order is not None:
        listed = sorted(listed, key=order)
    write_own(listed, path, columns)


def read_rows(path: Path) -> list[dict[str, str]]:
    """The lines of a table, none where there is no such file."""
    return read_own(path, "result")
