# SPDX-License-Identifier: Apache-2.0
"""Settings of a child bundle, derived from its data set."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from monai.bundle import ConfigParser
from scripts.data import Fingerprint, GridPlan, channel_names, describe_misfit, find_scans, size_for
from scripts.errors import InputError

from .description import modality, patient_classes, read_description, structures
from .weights import OWN

FEATURES = (16, 32, 64, 128)
"""Channels of the pre-trained model of this repository, whose weights then fit."""
STEPS, SHORTEST_EPOCH = 2500, 50
"""Length of a training of a segmentation, and of its shortest epoch."""
THIN, ROTATION = 3.0, 0.26
"""Ratio of slice thickness to voxel size from which slices are not tilted; radians of the rotation within them."""
PASS_STEPS, SHORTEST_PASS, BATCH, TRAINED_SHARE = 600, 10, 4, 0.7
"""The same of a classification; how many scans its template takes in a step, and what share it trains on."""
VALIDATION_SHARE, VALIDATION_OVERLAP = 0.15, 0.25
"""What the template of train.json validates on, and how its windows overlap."""
LISTS = ("training", "test", "numTraining", "numTest", "tensorImageSize", "release")
"""Entries of a dataset.json that say nothing of what a bundle is made of."""
DERIVED = ("classes", "in_channels", "ignored_codes", "layout", "table", "features", "intensity", "window", "rotation")
"""Settings that follow from the description or from other settings."""


@dataclass(frozen=True)
class Choices:
    """
    Everything a child bundle is made of.

    Attributes:
        name: of the bundle; its last word is the task.
        description: the content of dataset.json.
        settings: by config id.
        reasons: by config id, why.
        notes: what nobody would want unawares.
        backbone: in place of the templates' own: ``_target_`` and arguments; None for that.
    """

    name: str
    description: Mapping[str, Any]
    settings: dict[str, Any]
    reasons: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    backbone: Mapping[str, Any] | None = None

    @property
    def task(self) -> str:
        """segmentation or classification."""
        return self.name.rsplit("_", 1)[1]

    @property
    def modality(self) -> str:
        """CT or MR."""
        return modality(self.description)

    @property
    def size(self) -> list[int]:
        """Voxels that the network sees at once."""
        return self.settings["patch_size" if self.task == "segmentation" else "spatial_size"]

    def described(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """
        The description that gives the same choices without the data: dataset.json with what was measured on the scans.

        Args:
            given: settings the user insisted on.
        """
        description = {key: value for key, value in self.description.items() if key not in LISTS}
        if "table" in self.settings:
            description |= {key: self.settings[key] for key in ("table", "classes")}
        settings = {key: value for key, value in self.settings.items() if key not in DERIVED or key in given}
        return {**description, "settings": {key: value for key, value in settings.items() if key != "table"}}


def epoch_length_for(extent: Sequence[float], patch: Sequence[int], cases: int) -> int:
    """
    Steps between two validations, so that these take no more than a fifth of the time.

    A validation predicts every window of 15 % of the cases; a window costs about a third of a training step.

    Args:
        extent: voxels of the median scan.
        patch: voxels of a window.
        cases: of the data set.
    """
    stride = 1 - VALIDATION_OVERLAP
    axes = zip(extent, patch, strict=True)
    windows = math.prod(1 + max(0, math.ceil(round((size - window) / (window * stride), 3))) for size, window in axes)
    return max(SHORTEST_EPOCH, 10 * math.ceil(4 * windows * math.ceil(VALIDATION_SHARE * cases) / 3 / 10))


def _features(backbone: Mapping[str, Any]) -> list[int]:
    """Channels of a backbone's levels, see :class:`~scripts.networks.NetworkBackbone`."""
    return list(ConfigParser({"backbone": dict(backbone)}).get_parsed_content("backbone").features)


def _rounded(sizes: Any) -> list[float]:
    """Voxel sizes to a hundredth of a millimetre, finer ones to two digits."""
    return [round(float(size), 2) if size >= 0.1 else float(f"{size:.2g}") for size in sizes]


def _from_scans(
    fingerprint: Fingerprint, task: str, given: Mapping[str, Any], memory: float | None
) -> tuple[dict[str, Any], dict[str, str]]:
    """Voxel size, extent and course of the training, from the scans, by the parent's plan; and why."""
    scans, features = fingerprint.scans, given["features"]
    plan = GridPlan(fingerprint, memory, show=False)
    voxels, extent = plan.voxel, plan.extent
    if task == "classification":
        length = max(SHORTEST_PASS, math.ceil(TRAINED_SHARE * len(scans) / BATCH))
        pixdim = given.get("pixdim") or _rounded(plan.pixdim(features))
        settings = {"pixdim": pixdim, "spatial_size": plan.spatial_size(pixdim, features)}
        settings |= {"epoch_length": length, "epochs": max(1, round(PASS_STEPS / length))}
        return settings, {
            **plan.reasons,
            "epoch_length": f"as many scans as are trained on, {BATCH} a step",
            "epochs": f"{PASS_STEPS} steps",
        }
    pixdim = given.get("pixdim") or _rounded(voxels)
    patch = given.get("patch_size") or plan.spatial_size(pixdim, features)
    length = epoch_length_for((extent / np.array(pixdim)).tolist(), patch, len(scans))
    settings = {"pixdim": pixdim, "patch_size": patch, "epoch_length": length, "epochs": max(1, round(STEPS / length))}
    return settings, {
        "pixdim": f"median of {len(scans)} scans",
        "patch_size": plan.reasons.get("spatial_size", ""),
        "epoch_length": "validation takes no more than a fifth of the time",
        "epochs": f"{STEPS} steps",
    }


def choose(
    dataset: Path,
    name: str,
    given: Mapping[str, Any],
    memory: float | None = None,
    start: Mapping[str, Any] | None = None,
) -> Choices:
    """
    Derive the settings of a child bundle.

    Args:
        dataset: folder with ``dataset.json``; or a JSON file, the description of data that are elsewhere, whose
            ``settings`` say what cannot be derived then.
        name: of the bundle.
        given: settings the user insists on, by config id.
        memory: budget of a training, GB, see :class:`~scripts.data.GridPlan`; None for its default.
        start: the backbone that it begins with, see :func:`~child.weights.backbone_of`; None for the templates' own.

    Raises:
        InputError: for a folder, a description or scans that cannot be used; for scans of several channels and another
            backbone than the templates'.
    """
    description = read_description(dataset)
    kind, task = modality(description), name.rsplit("_", 1)[1]
    size = "patch_size" if task == "segmentation" else "spatial_size"
    stated = dict(description.get("settings", {}))
    notes: list[str] = []
    settings: dict[str, Any] = {"subject_key": None, "layout": description.get("layout"), "features": list(FEATURES)}
    reasons = {
        "features": "those of the pre-trained model",
        "subject_key": "every case a subject of its own",
        "intensity": f"modality {kind}",
        "window": "Hounsfield units, used with intensity 'window'",
    }
    settings |= {"intensity": "window" if kind == "CT" else "percentiles", "window": [-1024, 1024]}
    channels = channel_names(description)
    backbone = None if start is None or start["_target_"] == OWN else start
    if start is not None:
        settings["features"] = list(start["features"]) if backbone is None else _features(backbone)
        reasons["features"] = "those of the weights that it begins with"
    if backbone is not None and len(channels) > 1:
        raise InputError(
            f"the weights to begin with are for images of one channel, and dataset.json names {len(channels)} "
            f"({', '.join(channels.values())}): begin with those of a UNetBackbone, as bundle/models/model.pt, "
            "which are repeated"
        )
    if backbone is not None and given.get("features", settings["features"]) != settings["features"]:
        raise InputError(f"the weights to begin with have the features {settings['features']}: leave --features out")
    if task == "segmentation":
        settings["in_channels"] = len(channels)
        reasons["in_channels"] = ", ".join(channels.values())
        settings["classes"], settings["ignored_codes"] = structures(description)
    else:
        if len(channels) > 1:
            raise InputError(
                f"dataset.json names {len(channels)} channels ({', '.join(channels.values())}): a classification reads "
                "one; make it from a folder with one of them, whose dataset.json names that"
            )
        table = given.get("table") or description.get("table")
        settings["table"], settings["classes"] = patient_classes(description, table, dataset)
    if dataset.suffix == ".json":
        missing = [key for key in ("pixdim", size) if key not in {**stated, **given}]
        if missing:
            raise InputError(f'{dataset} describes data that are elsewhere: its "settings" lack {", ".join(missing)}')
    else:
        scans = find_scans(  # refuses a dataset.json that is not valid
            str(dataset), skip_bad=True, min_subjects=1, channels=len(channels), has_options=False
        )
        fingerprint = Fingerprint([{"image": scan["image"]} for scan in scans])
        measured, why = _from_scans(fingerprint, task, {"features": settings["features"], **stated, **given}, memory)
        settings, reasons = {**settings, **measured}, {**reasons, **why}
        seen = {**settings, **stated, **given}
        windows = task == "segmentation"  # they go over the whole scan, however small
        crop = size_for(np.median(fingerprint.extents, 0).tolist(), seen["pixdim"]) if windows else seen[size]
        notes = describe_misfit(fingerprint, seen["pixdim"], crop)
    pixdim = {**settings, **stated, **given}["pixdim"]
    if max(pixdim) > THIN * min(pixdim):
        settings["rotation"] = [ROTATION if size == max(pixdim) else 0.0 for size in pixdim]
        reasons["rotation"] = "thick slices: augmented by rotations in their plane alone"
    reasons |= {**dict.fromkeys(stated, "as the description says"), **dict.fromkeys(given, "as asked")}
    return Choices(name, description, {**settings, **stated, **given}, reasons, notes, backbone)
