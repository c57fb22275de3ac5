# SPDX-License-Identifier: Apache-2.0

"""This bundle's match as a user gets it: `inference.json`, its evaluator and its options, on scans read before."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset
from scripts.command_line import as_fire_reads
from scripts.data import read_json
from scripts.errors import InputError
from scripts.finetuning import AtlasReader, Backbone
from scripts.matching import world_match
from scripts.networks import GVSL
from scripts.spatial import WorldMatch

from .scans import Scan

BUNDLE = Path(__file__).resolve().parents[2] / "bundle"


@dataclass
class Pair:
    """
    Two scans, read; and prepared for this bundle's network.

    Args:
        fixed: in its own grid.
        moving: in its own grid.
        batch: what the configuration's preprocessing makes of them.
    """

    fixed: Scan
    moving: Scan
    batch: dict[str, Any]

    @property
    def scans(self) -> tuple[Scan, Scan]:
        """Fixed and moving."""
        return self.fixed, self.moving


def options_of(arguments: Sequence[str]) -> dict[str, Any]:
    """
    Ids of ``inference.json`` that stand on a command line as ``--id value``.

    Raises:
        InputError: for anything else.
    """
    rest, ids = list(arguments), {}
    while rest:
        name = rest.pop(0)
        if not name.startswith("--") or not rest:
            raise InputError(f"'{name}' is no option, or has no value: options are --id value")
        ids[name[2:]] = as_fire_reads(rest.pop(0))
    return ids


class BundleMatch:
    """
    The evaluator of ``inference.json``, run on one batch at a time.

    Args:
        configs: configuration files, ``inference.json`` first.
        options: ids that replace theirs, as on the command line.

    Raises:
        InputError: for an id that they do not have.
    """

    def __init__(self, configs: Sequence[str], options: Mapping[str, Any]) -> None:
        self.configs = [Path(path) for path in configs]
        self.parser = ConfigParser()
        self.parser.read_config([str(path) for path in configs])
        unknown = next((name for name in options if name.split("#")[0] not in self.parser), None)
        if unknown is not None:
            raise InputError(f"--{unknown} is no id of {configs[0]}")
        self.found: list[dict[str, Any]] = []
        self.parser.update({"bundle_root": str(BUNDLE), "handlers": [], **options})
        self.parser.update({"pair_list": [{}], "postprocessing": self._keep})
        self.network: GVSL = self.parser.get_parsed_content("network")
        if self.parser.get_parsed_content("load_pretrain"):
            self.parser.get_parsed_content("checkpointloader")()
        self.evaluator = self.parser.get_parsed_content("evaluator")

    @property
    def model(self) -> str | None:
        """The model's file; None where it is untrained."""
        return str(self.parser.get_parsed_content("model")) if self.parser.get_parsed_content("load_pretrain") else None

    def weights(self) -> str | None:
        """SHA-256 of the model's file; None where it is untrained."""
        return hashlib.sha256(Path(self.model).read_bytes()).hexdigest() if self.model else None

    def configuration(self) -> str:
        """SHA-256 of the configuration files: matches by others are not put beside those of this one."""
        return hashlib.sha256(b"".join(path.read_bytes() for path in self.configs)).hexdigest()

    def _keep(self, data: dict[str, Any]) -> dict[str, Any]:
        self.found = [data]
        return data

    def prepare(self, fixed: Scan, moving: Scan) -> Pair:
        """Read and prepare two scans."""
        files = [{"image": fixed.path, "moving": moving.path, "label": moving.label_path}]
        (batch,) = DataLoader(Dataset(files, self.parser.get_parsed_content("preprocessing")), batch_size=1)
        return Pair(fixed, moving, batch)

    def match(self, pair: Pair) -> dict[str, Any]:
        """The batch with ``pred``, see :class:`~scripts.matching.MatchingInferer`."""
        self.evaluator.data_loader = [pair.batch]
        self.evaluator.run()
        return self.found[0]

    def reader(self, atlases: Sequence[Scan]) -> AtlasReader:
        """The linear layer of ``carry.json``, fitted to labelled scans."""
        pairs = [{"moving": atlas.path, "label": atlas.label_path} for atlas in atlases]
        levels = read_json(BUNDLE / "configs" / "carry.json")["decoder_levels"]
        preprocessing = self.parser.get_parsed_content("preprocessing")
        return AtlasReader(cast(Backbone, self.network.backbone), pairs, preprocessing, levels)

    def __call__(self, pair: Pair) -> torch.Tensor:
        """The match, at the fixed scan's own voxels: ``(3, D, H, W)`` in millimetres RAS."""
        return world_match(self.match(pair)).displacement(pair.fixed.affine, pair.fixed.image.shape[1:])

    def affine(self, pair: Pair) -> torch.Tensor:
        """The affine part alone; the seconds are those of the whole match."""
        match = world_match(self.match(pair))
        flat = torch.zeros_like(match.local_displacement)
        alone = WorldMatch(match.affine, flat, match.fixed_affine, match.moving_affine)
        return alone.displacement(pair.fixed.affine, pair.fixed.image.shape[1:])
