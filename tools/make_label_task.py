# SPDX-License-Identifier: Apache-2.0
"""Make the task for MONAI Label that carries the labels saved on the server to the scan that is open."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from command import Parser, command
from monai.bundle import ConfigParser
from scripts.data import Fingerprint, GridPlan, find_scans
from scripts.errors import InputError
from scripts.training import ModelLoader

BUNDLE = Path(__file__).resolve().parents[1] / "bundle"
NAME = "carried_labels"
MATCH = ("global_matches", "both_ways", "check_mirror", "finest", "bfloat16")
"""Options of its match."""
NEEDS = ("network_def", "features", "imports", "bundle_root", "orientation", "percentiles", *MATCH)
"""What the task takes of ``inference.json`` as it is."""


def _parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = Parser(prog="make_label_task", description=__doc__)
    parser.add_argument("studies", metavar="STUDIES", help="the folder of scans that the server will show")
    parser.add_argument("out", metavar="OUT", type=Path, help="the folder 'model' of the app of MONAI Label")
    parser.add_argument("--labels", nargs="+", required=True, metavar="NAME", help="the structures, by their numbers")
    parser.add_argument("--model", type=Path, default=BUNDLE / "models" / "model.pt", help="weights (the bundle's)")
    parser.add_argument("--refine", type=int, default=0, help="steps of refinement of each match (default: 0)")
    return parser


def configuration(studies: str, model: Path, refine: int) -> dict[str, Any]:
    """
    The one configuration that the server reads.

    Args:
        studies: folder of scans, which the grid is planned from.
        model: weights; a ``settings.json`` beside them says how they were trained.
        refine: steps of refinement.

    Returns:
        ids and values.

    Raises:
        InputError: for weights that do not fit, or a folder without scans.
    """
    configs = BUNDLE / "configs"
    inference, server = (json.loads((configs / f"{name}.json").read_text()) for name in ("inference", "label_server"))
    config = {name: inference[name] for name in NEEDS}
    config |= {"pair_preprocessing": inference["preprocessing"], "match": inference["inferer"], "refine": refine}
    config |= server
    settings = model.with_name("settings.json")
    if settings.is_file():
        config |= json.loads(settings.read_text(encoding="utf-8"))
    else:
        plan = GridPlan(
            Fingerprint(find_scans(studies, min_subjects=1, skip_bad=True, has_options=False)), largest=True
        )
        config["pixdim"] = plan.pixdim(config["features"])
        config["spatial_size"] = plan.spatial_size(config["pixdim"], config["features"])
        config["intensity"] = plan.intensity()
        config["window"] = plan.window(config["intensity"])
    parser = ConfigParser(config)
    ModelLoader(parser.get_parsed_content("network_def"), str(model))()  # MONAI Label would go on with random ones
    return config


def make(studies: str, out: Path, labels: Sequence[str], model: Path, refine: int = 0) -> Path:
    """
    Write the folder of the task.

    Args:
        studies: folder of scans that the server will show.
        out: folder that gets the folder ``carried_labels``.
        labels: names of the structures, from number 1.
        model: weights.
        refine: steps of refinement.

    Returns:
        the folder.

    Raises:
        InputError: see :func:`configuration`; where the folder is there already; for a name given twice.
    """
    folder = out / NAME
    if folder.exists():
        raise InputError(f"{folder} is there already: move it away, or name another folder")
    if not out.is_dir():
        raise InputError(f"{out} does not exist: it is the folder 'model' of MONAI Label's app monaibundle")
    names = [label.lower() for label in labels]  # as MONAI Label has them
    if len(set(names)) < len(names) or "background" in names:
        raise InputError("--labels names each structure once, and not the background")
    config = configuration(studies, model, refine)
    metadata = json.loads((BUNDLE / "configs" / "metadata.json").read_text(encoding="utf-8"))
    metadata["description"] = "Labels that were submitted for other scans, carried to this one: correct, do not draw."
    metadata["network_data_format"]["outputs"]["pred"] = {
        **metadata["network_data_format"]["outputs"]["pred"],
        "format": "segmentation",
        "value_range": [0, len(names)],
        "channel_def": {str(number): name for number, name in enumerate(["background", *labels])},
    }
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(BUNDLE / "scripts", folder / "scripts", ignore=ignore)
    shutil.copyfile(BUNDLE / "LICENSE", folder / "LICENSE")
    for name, content in {"inference": config, "metadata": metadata}.items():
        path = folder / "configs" / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
    (folder / "models").mkdir()
    shutil.copyfile(model, folder / "models" / "model.pt")
    return folder


@command("make_label_task")
def main(argv: Sequence[str] | None = None) -> None:
    """See ``--help``."""
    args = _parser().parse_args(argv)
    folder = make(args.studies, args.out, args.labels, args.model, args.refine)
    print(f"{folder}: start the server with --conf models {NAME}")


if __name__ == "__main__":
    sys.exit(main())
