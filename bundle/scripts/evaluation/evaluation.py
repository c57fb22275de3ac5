# SPDX-License-Identifier: Apache-2.0
"""Evaluation of a model on a folder: every measure of every pair, and of the features."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Events
from monai.engines import Workflow

from ..networks.gvsl import GVSL
from .clustering import clustering_measures, sample_features
from .structures import number_structures


def without_nan(value: Any) -> Any:
    """The same nested containers with None for every NaN, which JSON does not know."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and np.isnan(value) else value


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
