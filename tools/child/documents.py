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
"""Metadata and documents of a child bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .choices import Choices

PARENT = Path(__file__).resolve().parents[2] / "bundle" / "configs" / "metadata.json"
PACKAGES = ("nibabel", "itk-core", "itk-io", "pynrrd", "scipy", "pytorch-ignite", "tensorboard", "tqdm", "matplotlib")


def metadata(choices: Choices) -> dict[str, Any]:
    """``metadata.json``, with the versions and authors of the parent bundle."""
    parent = json.loads(PARENT.read_text(encoding="utf-8"))
    names = [entry["name"] for entry in choices.settings["classes"]]
    patch, kind = choices.settings["patch_size"], choices.modality
    packages = {name: parent["required_packages_version"][name] for name in (*PACKAGES, "fire", "pydicom")}
    about = choices.description.get("description", choices.name)
    return {
        "schema": parent["schema"],
        "version": "0.1.0",
        "changelog": {"0.1.0": "made from the data set's description"},
        **{key: parent[key] for key in ("monai_version", "pytorch_version", "numpy_version")},
        "required_packages_version": packages,
        "name": choices.name,
        "task": f"Segmentation in {kind}: {', '.join(names)}",
        "description": f"{about}. A U-Net pre-trained by geometric visual similarity learning (GVSL), fine-tuned.",
        "authors": parent["authors"],
        "copyright": parent["copyright"],
        "data_source": str(choices.description.get("reference", "see docs/data_license.txt")),
        "data_type": "nibabel",
        "image_classes": f"single-channel {kind} scan, intensities scaled to 0..1",
        "label_classes": f"single channel, {len(names)} structures",
        "pred_classes": f"{len(names) + 1} channels: background, {', '.join(names)}",
        "eval_metrics": {},
        "intended_use": "Research. Not for diagnosis.",
        "references": parent["references"],
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image",
                    "format": "magnitude",
                    "modality": kind,
                    "num_channels": 1,
                    "spatial_shape": patch,
                    "dtype": "float32",
                    "value_range": [0, 1],
                    "is_patch_data": True,
                    "channel_def": {"0": "image"},
                }
            },
            "outputs": {
                "pred": {
                    "type": "image",
                    "format": "segmentation",
                    "num_channels": len(names) + 1,
                    "spatial_shape": patch,
                    "dtype": "float32",
                    "value_range": [],
                    "is_patch_data": True,
                    "channel_def": {str(n): name for n, name in enumerate(["background", *names])},
                }
            },
        },
    }


def data_license(choices: Choices) -> str:
    """``data_license.txt``: what dataset.json says of the terms."""
    terms = choices.description.get("licence") or choices.description.get("license")
    lines = [f"Data set: {choices.description.get('name', choices.name)}"]
    lines.append(f"Source: {choices.description.get('reference', 'not stated')}")
    lines.append(f"Terms: {terms or 'not stated in dataset.json: ask the owner before you share weights'}")
    return "\n".join(lines) + "\n"


def readme(choices: Choices) -> str:
    """``docs/README.md`` by the model zoo's template."""
    settings = choices.settings
    rows = "\n".join(f"| {n} | {e['name']} | {e['codes']} |" for n, e in enumerate(settings["classes"], 1))
    size = " x ".join(str(n) for n in settings["patch_size"])
    spacing = " x ".join(f"{v:g}" for v in settings["pixdim"])
    scaling = f"clipped to {settings['window']} HU" if settings["intensity"] == "window" else "percentiles of each scan"
    run = "python -m monai.bundle run --bundle_root . --config_file configs"
    return f"""# {choices.name}

## Overview
{choices.description.get("description", choices.name)}.

A U-Net (channels {settings["features"]}) whose weights can come from GVSL pre-training, with one 1x1x1 convolution
on its local features.

| class | structure | codes in the label files |
|---|---|---|
{rows}

## Data
{choices.modality}, labels in the layout of the Medical Segmentation Decathlon (`dataset.json`).
Terms: `data_license.txt`.

## Training configuration
Voxels of {spacing} mm, patches of {size} drawn with foreground, intensities scaled to 0..1 by {scaling}; Dice and
cross-entropy, Adam. The model with the best validation Dice becomes `models/model.pt`.

- `--mode finetune` (default), `linear` (frozen backbone) or `scratch`; `--pretrained <model.pt of a pre-training>`.
  Weights that do not cover the whole backbone are refused.
- `--num_labelled 5` or `--label_fraction 0.1` trains on few subjects, `--folds 5 --fold 0` is cross-validation,
  `--seed` the split. `--subject_key` tells subjects apart.

## Memory
Set by `--patch_size` and `--batch_size`; a validation or prediction runs in windows of the same patch.

## Input and output
Input: one {choices.modality} scan. Output: label map in the scan's own geometry, with the codes of the
table (class numbers where several codes were merged).

## Performance
No weights are part of this bundle yet: `models/model.pt` is what a training writes, and `evaluate.json` measures it.

## Commands
```
{run}/train.json --dataset_dir DATA --pretrained MODEL
{run}/evaluate.json --dataset_dir DATA --output_dir OUT
{run}/inference.json --image SCAN --output_dir OUT
```

## Limitations
Research use. Structures outside the field of view, other contrasts and other spacings were not tested.

## References
{parent_reference()}

## License
Code: Apache 2.0 (`LICENSE`). Data: `docs/data_license.txt`.
"""


def parent_reference() -> str:
    """The paper."""
    return "\n".join(json.loads(PARENT.read_text(encoding="utf-8"))["references"])
