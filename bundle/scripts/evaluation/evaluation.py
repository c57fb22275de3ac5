# SPDX-License-Identifier: Apache-2.0
"""Evaluation of a model on a folder: every measure of every pair, and of the features."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Events
from monai.engines import Workflow
from monai.networks.utils import eval_mode

from ..data.cache import prepared
from ..data.pair_dataset import PairDataset
from ..data.tables import write_own
from ..files import write_text
from ..matching.match_table import CONFIDENCE, INVERSE_CONSISTENCY, Trusted, confidence, doubted
from ..networks.gvsl import GVSL
from ..progress import progress
from .clustering import clustering_measures, collapse_measure, sample_features
from .structures import number_structures
from .summary import gains, mean_measures, structure_rows, without_nan

UNLABELLED_VOXELS = 500
"""Of a scan without label map, for the measure of collapse."""


class Evaluation:
    """
    Handler that collects every pair's measures and, at the end, those of the features, and writes ``pairs.csv``,
    ``structures.csv`` and ``summary.json``. It keeps numbers, no volumes.

    Args:
        folder: where to.
        network: whose local features are clustered.
        dataset: the pairs, one a batch; its prepared scans give the features.
        structures: see :func:`~scripts.evaluation.described_structures`; None without labels.
        seen: scans of the folder that the model was trained on.
        left_out: whether these are not among the pairs.
        per_structure: voxels of each structure and scan whose features are clustered.
        most_features: of all scans together; fewer voxels of each structure are taken where there would be more. The
            silhouette takes time with their square.
        neighbours: k of the nearest-neighbour purity.
        seed: of the choice of voxels.
        trusted: which matches are, see :func:`~scripts.matching.match_table.look_at`; None points none out.
        spacing: voxel size of the prepared images in millimetres; None takes that of their affines.
    """

    measures = (
        "ncc_before",
        "ncc_after",
        "dice_before",
        "dice_after",
        "hd95_before",
        "hd95_after",
        "folded_percentage",
        "log_jacobian_std",
        "restoration_error_before",
        "restoration_error_after",
    )
    structure_measures = ("dice_before", "dice_after", "hd95_before", "hd95_after")

    def __init__(
        self,
        folder: str,
        network: GVSL,
        dataset: PairDataset,
        structures: Mapping[str, Sequence[Any]] | None = None,
        seen: Sequence[str] = (),
        left_out: bool = True,
        per_structure: int = 50,
        most_features: int = 10000,
        neighbours: int = 5,
        seed: int = 0,
        trusted: Trusted | None = None,
        spacing: Sequence[float] | None = None,
    ) -> None:
        self.folder, self.network, self.dataset = Path(folder), network, dataset
        self.structures = dict(structures or {"names": [], "groups": [], "families": []})
        self.names, self.groups = self.structures["names"], self.structures["groups"]
        self.per_structure, self.most_features = per_structure, most_features
        self.neighbours, self.seed = neighbours, seed
        self.seen, self.left_out, self.trusted = list(seen), left_out, dict(trusted or {})
        self.spacing = spacing
        self.person = dict(zip(dataset.names, dataset.subjects.tolist(), strict=True))
        self.pairs: list[dict[str, Any]] = []
        self.features: list[np.ndarray] = []
        self.feature_codes: list[np.ndarray] = []
        self.summary: dict[str, Any] = {}

    def attach(self, engine: Workflow) -> None:
        """Register with the evaluator."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.iteration_completed)
        engine.add_event_handler(Events.COMPLETED, self.completed)

    def iteration_completed(self, engine: Workflow) -> None:
        """Keep the measures of one pair."""
        data: dict[str, Any] = {**engine.state.batch, **engine.state.output}
        row: dict[str, Any] = {"fixed": data["image_name"][0], "moving": data["moving_name"][0]}
        row["persons"] = (self.person[row["fixed"]], self.person[row["moving"]])
        row |= {name: float(data[name][0, 0]) for name in self.measures if name in data}
        row |= (found := confidence(data, spacing=self.spacing))
        said = doubted(data["pred"], found, self.trusted)
        row |= said if said["look_at"] else {}
        for measure in self.structure_measures:
            values = data.get(f"structure_{measure}")
            if values is not None:
                row |= {f"{measure}:{name}": float(v) for name, v in zip(self.names, values[0], strict=True)}
                row[measure] = float(values[0].nanmean())
        self.pairs.append(row)

    def completed(self, engine: Workflow) -> None:
        """Sum up, measure the features, then write the files."""
        self.summary = {
            "scans": len({row[end] for row in self.pairs for end in ("fixed", "moving")}),
            "pairs": len(self.pairs),
            "pairs_with_labels": sum("dice_after" in row for row in self.pairs),
            "trained_on": {"scans": self.seen, "left_out": self.left_out},
            "measures": mean_measures(self.pairs, (*self.measures, *CONFIDENCE, INVERSE_CONSISTENCY)),
            "to_look_at": sum(row.get("look_at") == "yes" for row in self.pairs),
            "gains": {name: found for name in ("ncc", "dice") if (found := gains(self.pairs, name))},
            "structures": structure_rows(self.pairs, self.structures, self.structure_measures),
        }
        self._features(engine)
        self.folder.mkdir(parents=True, exist_ok=True)
        plain = [{k: v for k, v in row.items() if ":" not in k and k != "persons"} for row in self.pairs]
        for name, rows in {"pairs.csv": plain, "structures.csv": self.summary["structures"]}.items():
            if rows:
                write_own(rows, self.folder / name)
        text = json.dumps(without_nan(self.summary), indent=4, allow_nan=False)
        write_text(text + "\n", self.folder / "summary.json")
        print(self._table(), flush=True)

    def _features(self, engine: Workflow) -> None:
        """Sample the local features of every scan: at its structures, or anywhere in a folder without labels."""
        rng = np.random.default_rng(self.seed)
        scans: Any = self.dataset.scans
        groups = max(1, len(self.groups)) * len(scans)
        fewest = UNLABELLED_VOXELS if not self.groups else self.per_structure
        each = max(2, min(fewest, self.most_features // groups))
        self.features, self.feature_codes, owners = [], [], []
        for index in progress(range(len(scans)), "Sampling features"):
            scan = prepared(scans, index)
            if self.groups and "label" not in scan:
                continue
            image = torch.as_tensor(scan["image"])[None].to(engine.state.device)
            with eval_mode(self.network):
                local = self.network.backbone(image)[1][0]
            label = number_structures(scan["label"][0], self.groups) if self.groups else torch.ones(local.shape[1:])
            features, codes = sample_features(local, label, each, rng)
            self.features.append(features)
            self.feature_codes.append(codes)
            owners.append(str(self.dataset.subjects[index]))
        measures = collapse_measure(self.features)
        if self.groups:
            measures |= clustering_measures(self.features, self.feature_codes, owners, self.neighbours)
        self.summary["features"] = measures

    def _table(self) -> str:
        values = {**self.summary["measures"], **self.summary["features"]}
        labelled = self.summary["pairs_with_labels"]
        some = f", {labelled} of them with labels" if 0 < labelled < len(self.pairs) else ""
        lines = [
            f"{len(self.pairs)} pairs of {self.summary['scans']} scans{some}",
            *(f"  {name.replace('_', ' '):26}{value:10.4f}" for name, value in values.items()),
        ]
        return "\n".join([*lines, f"written to {self.folder}"])
