# SPDX-License-Identifier: Apache-2.0
"""Make the weights that the committed children ship, and the model cards that say what they are.

``python tools/ship_weights.py [NAME ...] --data FOLDER``: where the data set is at hand the child is fine-tuned and
evaluated by its own configurations (taken up again where it was cut off); else its weights are a start, the pre-trained
backbone under an untrained last layer. ``python tools/make_child.py --all`` then puts the cards into the documents.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from child.weights import write_start
from command import Parser
from make_child import BUNDLE, CHILD, REPOSITORY, InputError, as_text, shared_data

SOFTWARE = ("torch", "monai", "numpy")
PRETRAINED = BUNDLE / "models" / "model.pt"


def bundle_command(folder: Path, config: str, **settings: Any) -> list[str]:
    """The command line that runs a configuration of a bundle, by paths relative to the repository where they can be."""
    options = {"bundle_root": folder, "config_file": folder / "configs" / f"{config}.json", **settings}
    return [
        "-m",
        "monai.bundle",
        "run",
        *(part for name, value in options.items() for part in (f"--{name}", str(value))),
    ]


def run(command: Sequence[str], log: Path) -> str:
    """
    Run and keep what it prints.

    Args:
        command: without the interpreter.
        log: file of the output.

    Raises:
        InputError: when it fails, with its last line.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as file:
        done = subprocess.run(
            [sys.executable, *command], cwd=REPOSITORY, stdout=file, stderr=subprocess.STDOUT, check=False
        )
    text = log.read_text(encoding="utf-8")
    if done.returncode:
        raise InputError(f"python {' '.join(command)} failed, see {log}: {text.strip().splitlines()[-1]}")
    return text


def shown(command: Sequence[str], data: Path) -> str:
    """A command as a reader would type it: paths from the repository's root, DATA for the folder of the data sets."""
    text = " ".join(f"'{part}'" if " " in part else part for part in ("python", *command))
    return text.replace(f"{REPOSITORY}/", "").replace(str(data), "DATA")


def fine_tune(name: str, made: Mapping[str, Any], data: Path, out: Path) -> dict[str, Any]:
    """
    Train and evaluate a child; its best model goes to ``models/model.pt``.

    Args:
        name: of the child.
        made: its entry of ``committed.json``.
        data: folder of the data sets.
        out: folder of the runs.

    Returns:
        the model card.
    """
    folder, runs = REPOSITORY / "downstream" / name, out / name
    dataset = data / made["dataset"]
    settings = {"dataset_dir": dataset, "output_dir": runs, "pretrained": PRETRAINED, **made["training"]}
    train = bundle_command(folder, "train", **settings)
    run([*train, "--ckpt_dir", str(runs), "--resume", "True"], runs / "train.log")
    known = json.loads((folder / "configs" / "evaluate.json").read_text(encoding="utf-8"))
    same = {key: value for key, value in made["training"].items() if key in known}  # the split
    settings = {"dataset_dir": dataset, "output_dir": runs / "test", "model": runs / "model.pt", **same}
    evaluate = bundle_command(folder, "evaluate", **settings)
    log = run(evaluate, runs / "evaluate.log")
    shutil.copyfile(runs / "model.pt", folder / "models" / "model.pt")
    results = json.loads((runs / "test" / "summary.json").read_text(encoding="utf-8"))
    counts = next(line for line in log.splitlines() if line.endswith("test cases"))
    steps = " ".join(f"{key} {value}" for key, value in made["training"].items())
    return {
        "trained": True,
        "summary": f"Fine-tuned from the pre-trained backbone on a CPU ({steps}; {counts}, split by subject, seed 0): "
        "a short run. Measured on the test cases, whose subjects were not trained on:",
        "command": shown(train, data) + "\n" + shown(evaluate, data).replace(str(out / name), f"runs/{name}"),
        "results": results,
        **({"limits": made["limits"]} if "limits" in made else {}),
    }


def card(name: str, content: Mapping[str, Any]) -> None:
    """Write the model card of a child, with the checksum of its weights and the versions they were made with."""
    weights = (REPOSITORY / "downstream" / name / "models" / "model.pt").read_bytes()
    whole = {
        **content,
        "sha256": hashlib.sha256(weights).hexdigest(),
        "pretrained_sha256": hashlib.sha256(PRETRAINED.read_bytes()).hexdigest(),
        "software": {package: version(package) for package in SOFTWARE},
    }
    (CHILD / "cards" / f"{name}.json").write_text(as_text(whole), encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run the command.

    Args:
        argv: its arguments, those of the process by default.

    Returns:
        the exit code.
    """
    parser = Parser(prog="ship_weights", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", metavar="NAME", nargs="*", help="children (default: all committed ones)")
    parser.add_argument("--data", type=Path, default=shared_data(), help="folder of the data sets")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "runs" / "children", help="folder of the runs")
    args = parser.parse_args(argv)
    committed = json.loads((CHILD / "committed.json").read_text(encoding="utf-8"))
    unknown = [name for name in args.names if name not in committed]
    if unknown:
        parser.error(f"no committed child is called {unknown[0]}: {', '.join(committed)}")
    try:
        for name in args.names or committed:
            if "training" in committed[name]:
                content = fine_tune(name, committed[name], args.data, args.out)
            else:
                write_start(REPOSITORY / "downstream" / name, PRETRAINED)
                content = {"trained": False}
            card(name, content)
            print(f"{name}: models/model.pt and its card are written")
    except InputError as error:
        print(f"ship_weights: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
