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
"""Settings of a child bundle, derived from its data set."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import MetaTensor
from monai.transforms import LoadImage, Orientation
from scripts.errors import InputError
from scripts.scans import find_scans

LARGEST_PATCH = 96
SAMPLED = 12
"""Scans whose size and spacing are read."""


@dataclass(frozen=True)
class Choices:
    """
    Everything a child bundle is made of.

    Attributes:
        name: of the bundle.
        description: the content of dataset.json.
        settings: by config id.
        reasons: by config id, why.
    """

    name: str
    description: Mapping[str, Any]
    settings: dict[str, Any]
    reasons: dict[str, str] = field(default_factory=dict)

    @property
    def modality(self) -> str:
        """CT or MR."""
        return modality(self.description)


def modality(description: Mapping[str, Any]) -> str:
    """
    CT or MR, from the first channel of dataset.json.

    Raises:
        InputError: when it names neither.
    """
    words = str(next(iter(dict(description.get("modality", {})).values()), "")).upper()
    if "CT" in words:
        return "CT"
    if "MR" in words or words in ("T1", "T2", "FLAIR"):
        return "MR"
    raise InputError(f"dataset.json names the modality '{words}': give it as CT or MRI")


def structures(description: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[int]]:
    """
    Structures and the codes that make them up, and the codes that count as background.

    Args:
        description: of dataset.json; ``coarse_labels`` (value, name, source_values) merge its ``labels``.
    """
    labels = description.get("labels")
    if not isinstance(labels, Mapping) or not all(str(code).isdigit() for code in labels):
        raise InputError('dataset.json needs "labels" such as {"0": "background", "1": "liver"}')
    codes = sorted(int(code) for code in labels if int(code))
    if not codes:
        raise InputError('dataset.json names no structure beside the background in "labels"')
    if "coarse_labels" in description:
        merged = sorted(description["coarse_labels"], key=lambda entry: entry["value"])
        classes = [{"name": entry["name"], "codes": entry["source_values"]} for entry in merged]
    else:
        classes = [{"name": labels[str(code)], "codes": [code]} for code in codes]
    used = {code for entry in classes for code in entry["codes"]}
    return classes, [code for code in codes if code not in used]


def _grid(path: str) -> tuple[list[int], list[float]]:
    """Shape and spacing of a scan turned to right, anterior, superior."""
    image = Orientation("RAS", labels=None)(LoadImage(image_only=True, ensure_channel_first=True)(path))
    assert isinstance(image, MetaTensor)
    return list(image.shape[1:]), [float(value) for value in image.pixdim]


def patch_for(
    shapes: Sequence[Sequence[int]], spacings: Sequence[Sequence[float]], pixdim: Sequence[float]
) -> list[int]:
    """The median extent in voxels of ``pixdim``, as the nearest multiples of 16, from 16 to 96."""
    extents = np.array(shapes) * np.array(spacings) / np.array(pixdim)
    return [int(min(LARGEST_PATCH, max(16, 16 * round(size / 16)))) for size in np.median(extents, 0)]


def choose(dataset: Path, name: str, given: Mapping[str, Any]) -> Choices:
    """
    Derive the settings of a child bundle.

    Args:
        dataset: folder with ``dataset.json``.
        name: of the bundle.
        given: settings the user insists on.

    Raises:
        InputError: for a folder, a description or scans that cannot be used.
    """
    path = dataset / "dataset.json"
    if not path.is_file():
        raise InputError(f"{path} does not exist: a child bundle is made from a data set's own description")
    scans = find_scans(str(dataset), min_subjects=1)  # refuses a dataset.json that is not valid
    description = json.loads(path.read_text(encoding="utf-8"))
    kind = modality(description)
    classes, ignored = structures(description)
    sampled = scans[:: max(1, len(scans) // SAMPLED)]
    shapes, spacings = zip(*(_grid(scan["image"]) for scan in sampled), strict=True)
    pixdim = given.get("pixdim") or [round(float(v), 2) for v in np.median(np.array(spacings), 0)]
    patch = given.get("patch_size") or patch_for(shapes, spacings, pixdim)
    features = [16, 32, 64, 128] if min(patch) < 64 else [16, 32, 64, 128, 256]
    derived = {
        "pixdim": pixdim,
        "patch_size": patch,
        "intensity": "window" if kind == "CT" else "percentiles",
        "window": [-1024, 1024],
        "features": features,
        "classes": classes,
        "ignored_codes": ignored,
        "subject_key": None,
    }
    reasons = {
        "pixdim": f"median of {len(sampled)} scans",
        "patch_size": f"median size, multiples of 16, at most {LARGEST_PATCH}",
        "intensity": f"modality {kind}",
        "window": "Hounsfield units, used with intensity 'window'",
        "features": "three poolings where the patch is below 64 voxels, else four",
        "subject_key": "every case a subject of its own",
    }
    return Choices(name, description, {**derived, **given}, {**reasons, **dict.fromkeys(given, "as asked")})
