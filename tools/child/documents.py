# SPDX-License-Identifier: Apache-2.0
"""Metadata and documents of a child bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import metadata as metadata_of
from pathlib import Path
from string import Template
from typing import Any

from scripts.data import channel_names
from scripts.errors import OPTIONAL

from .choices import Choices

HERE = Path(__file__).parent
PARENT = HERE.parents[1] / "bundle" / "configs" / "metadata.json"
VERSIONS = ("monai_version", "pytorch_version", "numpy_version", "supported_versions", "required_packages_version")


def metadata(choices: Choices, card: Mapping[str, Any]) -> dict[str, Any]:
    """
    ``metadata.json``, with the versions and authors of the parent bundle.

    Args:
        choices: name, settings and description.
        card: what is known of the weights, see :func:`performance`.
    """
    parent = json.loads(PARENT.read_text(encoding="utf-8"))
    names = [entry["name"] for entry in choices.settings["classes"]]
    segmentation = choices.task == "segmentation"
    images = list(channel_names(choices.description).values())
    images = images if len(images) > 1 else ["image"]
    kind = "single-channel" if len(images) == 1 else f"{len(images)}-channel"
    channels = ["background", *names] if segmentation else names
    network = "A U-Net" if choices.backbone is None else choices.backbone["network"]["_target_"].rpartition(".")[2]
    origin = "fine-tuned" if card.get("trained") else "not yet fine-tuned: the weights are its start"
    output = (
        {"type": "image", "format": "segmentation"} if segmentation else {"type": "probabilities", "format": "classes"}
    )
    return {
        "schema": parent["schema"],
        "version": card.get("version", "0.1.0"),
        "changelog": card.get("changelog", {"0.1.0": "made from the data set's description"}),
        **{key: parent[key] for key in VERSIONS},
        "required_packages_version": parent["required_packages_version"] | needed_packages(choices),
        "name": choices.name,
        "task": f"{choices.task.capitalize()} in {choices.modality}: {', '.join(names)}",
        "description": f"{about(choices)}. {network} of geometric visual similarity learning (GVSL), {origin}.",
        "authors": parent["authors"],
        "copyright": parent["copyright"],
        "data_source": str(choices.description.get("reference", "see docs/data_license.txt")),
        "data_type": "nibabel",
        "image_classes": f"{kind} {choices.modality} scan, intensities scaled to 0..1",
        "label_classes": f"single channel, {len(names)} {'structures' if segmentation else 'classes of patients'}",
        "pred_classes": f"{len(channels)} channels: {', '.join(channels)}",
        "eval_metrics": _numbers(list(card["results"].values())[-1]) if card.get("trained") else {},
        "intended_use": "Research. Not for diagnosis.",
        "references": parent["references"],
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image",
                    "format": "magnitude",
                    "modality": choices.modality,
                    "num_channels": len(images),
                    "spatial_shape": choices.size,
                    "dtype": "float32",
                    "value_range": [0, 1],
                    "is_patch_data": segmentation,
                    "channel_def": {str(n): name for n, name in enumerate(images)},
                }
            },
            "outputs": {
                "pred": {
                    **output,
                    "num_channels": len(channels),
                    "spatial_shape": choices.size if segmentation else [],
                    "dtype": "float32",
                    "value_range": [],
                    "is_patch_data": segmentation,
                    "channel_def": {str(n): name for n, name in enumerate(channels)},
                }
            },
        },
    }


def needed_packages(choices: Choices) -> dict[str, str]:
    """Packages, with their versions here, that only the network of a child needs."""
    target = "" if choices.backbone is None else str(choices.backbone["network"]["_target_"])
    return {package: metadata_of.version(package) for package, name in OPTIONAL.items() if target.endswith(name)}


def _numbers(row: Mapping[str, Any]) -> dict[str, float | None]:
    """The measures of a row that are single numbers."""
    return {name: value for name, value in row.items() if not isinstance(value, dict)}


def about(choices: Choices) -> str:
    """One sentence of what the data show, without its full stop."""
    return str(choices.description.get("description", choices.name)).rstrip(". ")


def data_license(choices: Choices, card: Mapping[str, Any]) -> str:
    """``data_license.txt``: what dataset.json says of the terms, and whose terms come with weights that are there."""
    terms = choices.description.get("licence") or choices.description.get("license")
    lines = [f"Data set: {choices.description.get('name', choices.name)}"]
    lines.append(f"Source: {choices.description.get('reference', 'not stated')}")
    lines.append(f"Terms: {terms or 'not stated in dataset.json: ask the owner before you share weights'}")
    if card:
        lines.append("Weights: begun from those of gvsl_ct_mr_pretraining: see the terms in its data_license.txt")
    return "\n".join(lines) + "\n"


def performance(choices: Choices, card: Mapping[str, Any]) -> str:
    """
    The model card: what ``models/model.pt`` is and how good.

    Args:
        choices: name and settings.
        card: ``trained``; for weights that are, ``sha256``, ``command``, ``results`` (measures by structure or class)
            and so on, as ``tools/ship_weights.py`` writes it; empty without weights.
    """
    if not card:
        return "No weights are part of this bundle: a training writes `models/model.pt`, `evaluate.json` measures it."
    if not card["trained"]:
        return (
            "**Not trained for this task**, whose data were not at hand: `models/model.pt` is a start for fine-tuning, "
            "the backbone of the parent bundle (`gvsl_ct_mr_pretraining`, whose model card says what it saw) under an "
            "untrained last layer. Whether it helps here was not measured."
        )
    software = ", ".join(f"{name} {version}" for name, version in card["software"].items())
    made = f"SHA-256 of `models/model.pt`: `{card['sha256']}` (tensors only; {software})."
    columns = list(_numbers(next(iter(card["results"].values()))))
    lines = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for row, values in card["results"].items():
        shown = ["-" if values[name] is None else str(values[name]) for name in columns]
        lines.append(f"| {row} | {' | '.join(shown)} |")
    table = "\n".join(lines)
    return f"{card['summary']}\n\n{table}\n\nMade by\n```\n{card['command']}\n{card['evaluation']}\n```\n{made}"


def readme(choices: Choices, card: Mapping[str, Any]) -> str:
    """``docs/README.md`` by the model zoo's template."""
    settings, codes = choices.settings, "codes" if choices.task == "segmentation" else "values"
    first = 1 if choices.task == "segmentation" else 0
    run = "python -m monai.bundle run --bundle_root . --config_file configs"
    both = run.replace("configs", "\"['configs/train.json','configs/evaluate.json']\"")
    commands = [
        f"{run}/train.json --dataset_dir DATA --pretrained MODEL --output_dir RUN",
        f"""{both} --dataset_dir DATA --model RUN/model.pt --output_dir OUT""",
        f"{run}/inference.json --image SCAN --model RUN/model.pt --output_dir OUT",
    ]
    if "preparation" in choices.description:
        commands.insert(0, f"{run}/prepare.json --source_dir DOWNLOAD --dataset_dir DATA")
    how = choices.description.get(
        "layout_description",
        "in the layout of the Medical Segmentation Decathlon (`dataset.json`)"
        + (f", with the patients in `{settings['table']['file']}`" if "table" in settings else ""),
    )
    window = f"clipped to {settings['window']} HU"
    return Template((HERE / choices.task / "README.md").read_text(encoding="utf-8")).substitute(
        name=choices.name,
        about=about(choices),
        features=settings["features"],
        classes="\n".join(f"| {n} | {e['name']} | {e[codes]} |" for n, e in enumerate(settings["classes"], first)),
        data=f"{choices.modality}, {how}. Terms: `data_license.txt`.",
        pixdim=" x ".join(f"{v:g}" for v in settings["pixdim"]),
        size=" x ".join(str(n) for n in choices.size),
        scaling=window if settings["intensity"] == "window" else "percentiles of each scan",
        modality=choices.modality,
        performance=performance(choices, card),
        commands="\n".join(commands),
        limits=f" {card['limits']}" if card.get("limits") else "",
        references="\n".join(json.loads(PARENT.read_text(encoding="utf-8"))["references"]),
    )
