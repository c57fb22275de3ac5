# Copyright (c) GVSL bundle contributors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Evaluation of a model on a labelled folder: every measure of every pair, and of the features."""

from __future__ import annotations

import csv
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Events
from monai.engines import Workflow
from monai.metrics import compute_dice, compute_hausdorff_distance
from monai.networks.utils import one_hot

from .clustering import clustering_measures, sample_features
from .errors import InputError
from .geometry import jacobian_determinant, warp
from .losses import LocalNCCLoss
from .metrics import MatchingQuality
from .networks import GVSL
from .pairing import check_label


def number_structures(label: torch.Tensor, groups: Sequence[Sequence[int]]) -> torch.Tensor:
    """
    Args:
        label: label map of any shape.
        groups: for each structure the label codes that make it up.

    Returns:
        of the same shape: 1 for the first structure, 2 for the second ..., 0 elsewhere.
    """
    table = {code: number for number, codes in enumerate(groups, start=1) for code in codes}
    found, inverse = torch.unique(label.round().long(), return_inverse=True)
    numbers = torch.as_tensor([table.get(int(code), 0) for code in found], device=label.device)
    return numbers[inverse].to(label.dtype)


def without_nan(value: Any) -> Any:
    """The same nested containers with None for every NaN, which JSON does not know."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and np.isnan(value) else value


class DetailedQuality(MatchingQuality):
    """
    :class:`~scripts.metrics.MatchingQuality` and what is too slow for training: Dice and 95 % Hausdorff distance of
    each structure, standard deviation of the logarithm of the Jacobian determinant, restoration error.

    Args:
        network: restores the corrupted image.
        groups: for each structure the label codes that make it up; empty without labels.
        spacing: voxel size in millimetres.
        ncc: the local NCC to report.
    """

    def __init__(
        self,
        network: GVSL,
        groups: Sequence[Sequence[int]] = (),
        spacing: Sequence[float] = (1.0, 1.0, 1.0),
        ncc: LocalNCCLoss | None = None,
    ) -> None:
        super().__init__(ncc)
        self.network, self.groups, self.spacing = network, list(groups), list(spacing)

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """
        Args:
            data: see the base class, with ``corrupted`` ``(B, 1, D, H, W)``, the moving image after the appearance
                transformations.

        Returns:
            the same with ``log_jacobian_std``, ``restoration_error`` ``(B, 1)``, ``restored`` ``(B, 1, D, H, W)`` and,
            with labels, ``structure_dice_before`` / ``_after`` and ``structure_hd95_before`` / ``_after`` ``(B, K)``,
            NaN where a structure is in neither or (distance) only one of the two.
        """
        labels = [key for key in ("image_label", "moving_label") if key in data and self.groups]
        data = {**data, **{key: number_structures(data[key], self.groups) for key in labels}}
        result = super().__call__(data)
        displacement = data["pred"]["displacement"]
        determinant = jacobian_determinant(displacement).flatten(1).clamp(min=1e-3)
        result["log_jacobian_std"] = determinant.log().std(dim=1)[:, None]
        with torch.no_grad():
            restored = self.network(data["corrupted"].to(displacement))
        result["restored"] = restored
        error = (restored - data["moving"].to(displacement)).square().flatten(1).mean(dim=1)
        result["restoration_error"] = error[:, None]
        if len(labels) == 2:
            fixed, moving = (data[key].to(displacement) for key in labels)
            carried = warp(moving, displacement, mode="nearest")
            reference, before, after = (
                one_hot(label, len(self.groups) + 1)[:, 1:] for label in (fixed, moving, carried)
            )
            for name, masks in {"before": before, "after": after}.items():
                dice = compute_dice(masks, reference, include_background=True, ignore_empty=False)
                nowhere = (masks + reference).flatten(2).sum(dim=2) == 0
                result[f"structure_dice_{name}"] = dice.masked_fill(nowhere, torch.nan)
                with warnings.catch_warnings():  # a structure missing in one of the two gives NaN, which is meant
                    warnings.simplefilter("ignore")
                    distance = compute_hausdorff_distance(
                        masks, reference, include_background=True, percentile=95, spacing=self.spacing
                    )
                result[f"structure_hd95_{name}"] = torch.where(distance.isfinite(), distance, torch.nan)
        return result


class Evaluation:
    """
    Handler that collects every pair's measures and, at the end, those of the features, and writes ``pairs.csv``,
    ``structures.csv`` and ``summary.json``.

    Args:
        folder: where to.
        network: whose local features are clustered.
        groups: for each structure the label codes that make it up.
        names: their names, in the same order.
        scans: prepared scans with ``image`` and ``label`` ``(1, D, H, W)``, for the clustering; None without labels.
        subjects: subject of each of these scans.
        per_structure: voxels of each structure and scan whose features are clustered.
        neighbours: k of the nearest-neighbour purity.
        seed: of the choice of voxels.
    """

    measures = (
        "ncc_before",
        "ncc_after",
        "dice_before",
        "dice_after",
        "folded_percentage",
        "log_jacobian_std",
        "restoration_error",
    )
    structure_measures = ("dice_before", "dice_after", "hd95_before", "hd95_after")

    def __init__(
        self,
        folder: str,
        network: GVSL,
        groups: Sequence[Sequence[int]] = (),
        names: Sequence[str] = (),
        scans: Any = None,
        subjects: Sequence[str] = (),
        per_structure: int = 50,
        neighbours: int = 5,
        seed: int = 0,
    ) -> None:
        self.folder, self.network, self.groups, self.names = Path(folder), network, list(groups), list(names)
        self.codes = list(range(1, len(self.groups) + 1))
        self.scans, self.subjects = scans, list(subjects)
        self.per_structure, self.neighbours, self.seed = per_structure, neighbours, seed
        self.pairs: list[dict[str, Any]] = []
        self.volumes: list[dict[str, np.ndarray]] = []
        self.features: list[np.ndarray] = []
        self.feature_codes: list[np.ndarray] = []
        self.summary: dict[str, Any] = {}

    def attach(self, engine: Workflow) -> None:
        """Register with the evaluator."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.iteration_completed)
        engine.add_event_handler(Events.COMPLETED, self.completed)

    def iteration_completed(self, engine: Workflow) -> None:
        """Keep the measures and the volumes of one pair."""
        data: dict[str, Any] = {**engine.state.batch, **engine.state.output}
        row: dict[str, Any] = {"fixed": data["image_name"][0], "moving": data["moving_name"][0]}
        row |= {name: float(data[name][0, 0]) for name in self.measures if name in data}
        for measure in self.structure_measures:
            values = data.get(f"structure_{measure}")
            if values is not None:
                row |= {f"{measure}:{name}": float(v) for name, v in zip(self.names, values[0], strict=True)}
                row[measure] = float(values[0].nanmean())
        self.pairs.append(row)
        images = {
            "fixed": data["image"],
            "moving": data["moving"],
            "warped": data["pred"]["warped"],
            "corrupted": data["corrupted"],
            "restored": data["restored"],
        }
        kept = {name: image[0, 0].detach().half().cpu().numpy() for name, image in images.items()}
        kept["displacement"] = data["pred"]["displacement"][0].detach().half().cpu().numpy()
        self.volumes.append(kept)

    def completed(self, engine: Workflow) -> None:
        """Cluster the features, then write the files."""
        self.summary = {"pairs": len(self.pairs), "measures": self._means(), "structures": self._structures()}
        if self.scans is not None and self.codes:
            self._cluster(engine)
        self.folder.mkdir(parents=True, exist_ok=True)
        plain = [{k: v for k, v in row.items() if ":" not in k} for row in self.pairs]
        self._write_csv("pairs.csv", plain)
        self._write_csv("structures.csv", self.summary["structures"])
        text = json.dumps(without_nan(self.summary), indent=4, allow_nan=False)
        (self.folder / "summary.json").write_text(text + "\n", encoding="utf-8")
        print(self._table(), flush=True)

    def _means(self) -> dict[str, float]:
        names = [name for name in self.pairs[0] if name not in ("fixed", "moving") and ":" not in name]
        return {name: float(np.nanmean([row[name] for row in self.pairs])) for name in names}

    def _structures(self) -> list[dict[str, Any]]:
        rows = []
        for codes, name in zip(self.groups, self.names, strict=True):
            values = {
                m: [row[f"{m}:{name}"] for row in self.pairs if f"{m}:{name}" in row] for m in self.structure_measures
            }
            found = {m: float(np.nanmean(v)) for m, v in values.items() if v and not np.isnan(v).all()}
            if found:
                rows.append({"codes": " ".join(map(str, codes)), "structure": name, **found})
        return rows

    def _cluster(self, engine: Workflow) -> None:
        rng = np.random.default_rng(self.seed)
        self.network.eval()
        for index in range(len(self.subjects)):
            scan = self.scans[index]
            with torch.no_grad():
                local = self.network.backbone(scan["image"][None].to(engine.state.device))[1][0]
            label = number_structures(scan["label"][0], self.groups)
            features, codes = sample_features(local, label, self.per_structure, rng)
            self.features.append(features)
            self.feature_codes.append(codes)
        measures = clustering_measures(self.features, self.feature_codes, self.subjects, self.neighbours)
        self.summary["clustering"] = measures

    def _write_csv(self, name: str, rows: Sequence[dict[str, Any]]) -> None:
        if rows:
            with (self.folder / name).open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)), restval="")
                writer.writeheader()
                writer.writerows(rows)

    def _table(self) -> str:
        values = {**self.summary["measures"], **self.summary.get("clustering", {})}
        lines = [
            f"{len(self.pairs)} pairs",
            *(f"  {name.replace('_', ' '):22}{value:10.4f}" for name, value in values.items()),
        ]
        return "\n".join([*lines, f"written to {self.folder}"])


def described_structures(
    dataset_dir: str, scans: Sequence[dict[str, Any]], merged: str | None = None
) -> dict[str, list[Any]]:
    """
    The structures of a labelled folder; refuses label maps that do not fit their scans or the description.

    Args:
        dataset_dir: the folder, with a dataset.json.
        scans: its scans.
        merged: name of an entry of dataset.json that merges label codes: a list of ``{"name", "source_values"}``; None
            takes each code of its ``labels`` for a structure.

    Returns:
        ``names`` and ``groups`` (the label codes of each structure), without the background; both empty where not every
        scan has a label map.

    Raises:
        InputError: when dataset.json does not say which structures there are, or a label map does not fit.
    """
    if not all("label" in scan for scan in scans):
        return {"names": [], "groups": []}
    description = Path(dataset_dir) / "dataset.json"
    content = json.loads(description.read_text(encoding="utf-8"))
    try:
        known = {int(code): str(name) for code, name in content["labels"].items()}
        if merged is None:
            names, groups = [known[code] for code in sorted(known) if code], [[code] for code in sorted(known) if code]
        else:
            names = [str(entry["name"]) for entry in content[merged]]
            groups = [[int(code) for code in entry["source_values"]] for entry in content[merged]]
    except (AttributeError, KeyError, ValueError, TypeError) as error:
        wanted = "'labels' that map each code to a name" + (f" and '{merged}' that merges codes" if merged else "")
        raise InputError(f"{description} needs {wanted} ({type(error).__name__} {error})") from error
    for scan in scans:
        check_label(scan["image"], scan["label"], [0, *known])
    return {"names": names, "groups": groups}
