# SPDX-License-Identifier: Apache-2.0

"""Pre-training of an arm by the command that a user types; cut off, it goes on where it was."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.errors import InputError

from .plan import BUNDLE, overlays_of, started_from


def run_folder(out: Path, data: str, arm: str, seed: str) -> Path:
    return out / "pretraining" / data / f"{arm}_{seed}"


def epochs_done(folder: Path) -> int:
    """Epochs in ``history.csv`` whose checkpoint is there."""
    path = folder / "history.csv"
    if not path.is_file() or not (folder / "checkpoint.pt").is_file():
        return 0
    with path.open(newline="", encoding="utf-8") as file:
        return max((int(float(row["epoch"])) for row in csv.DictReader(file)), default=0)


def mixed(plan: Mapping[str, Any], mixture: str) -> dict[str, Any]:
    """Settings of a mixture: each of its sets keeps its key of subjects and gets as many steps as it has alone."""
    about = plan["mixtures"][mixture]
    return {
        "zoom": list(about["zoom"].values()),
        "subject_key": [plan["sets"][data]["shared"].get("subject_key") for data in about["zoom"]],
        "epoch_length": len(about["zoom"]) * plan["budget"]["epoch_length"],
    }


def overlay(plan: Mapping[str, Any], source: str, arm: str, seed: str) -> dict[str, Any]:
    """What is laid over ``train.json`` and the arm's overlays: budget, network, set or mixture, arm."""
    mixture = source in plan.get("mixtures", {})
    of_source = plan["mixtures" if mixture else "sets"][source]
    training = mixed(plan, source) if mixture else {}
    parts = (plan["budget"], plan["network"], of_source["shared"], training, plan["arms"][arm].get("training", {}))
    return {"seed": int(seed), **{key: value for part in parts for key, value in part.items()}}


def weights_of(
    plan: Mapping[str, Any], source: str, arm: str, seed: str, folders: Sequence[Path], out: Path
) -> Path | None:
    """
    The arm's weights, pre-trained now where they are not there yet. The last epoch's: nothing is chosen by scans that
    are measured on later.

    Args:
        plan: see :func:`~evidence.plan.read_plan`.
        source: name of the set or mixture to pre-train on.
        arm: name of the arm.
        seed: of everything.
        folders: of the sets that are pre-trained on.
        out: folder of the whole comparison.

    Returns:
        None for an arm without weights. An arm ``after`` another one begins with the weights of that one.

    Raises:
        InputError: when the pre-training ends with an error; its message has been shown. Where the weights that the
            plan names are not there.
    """
    if "start" in plan["arms"][arm]:
        return started_from(plan, arm)
    run = run_folder(out, source, arm, seed)
    settings = overlay(plan, source, arm, seed)
    done = epochs_done(run)
    if done < settings["epochs"]:
        run.parent.mkdir(parents=True, exist_ok=True)
        config = run.parent / f"{run.name}.json"
        config.write_text(json.dumps(settings, indent=4) + "\n", encoding="utf-8")
        files = [BUNDLE / "configs" / "train.json", *overlays_of(plan, arm), config]
        options = {
            "bundle_root": BUNDLE,
            "config_file": str([str(file) for file in files]),
            "dataset_dir": folders[0] if len(folders) == 1 else [str(folder) for folder in folders],
            "output_dir": run,
            "cache_dir": out / "cache" / source,
            "resume": bool(done),
        }
        if "after" in plan["arms"][arm]:
            options["pretrained"] = weights_of(plan, source, plan["arms"][arm]["after"], seed, folders, out)
        arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        if subprocess.run([sys.executable, "-m", "monai.bundle", "run", *arguments], check=False).returncode:
            raise InputError(
                f"the pre-training of {run} was not completed, see above; the same command goes on with it"
            )
    return run / "checkpoint.pt"
