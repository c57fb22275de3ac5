# SPDX-License-Identifier: Apache-2.0
"""Fine-tune and measure the children that ship trained weights, and write their model cards.

``python tools/ship_weights.py [NAME ...] --data FOLDER`` fine-tunes each by its own configurations (taken up again
where it was cut off) and evaluates it; with ``--measure`` the weights that are there are evaluated anew. The documents
of the children then follow the cards, as by ``python tools/make_child.py --all``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from child.weights import PRETRAINED
from command import Parser, command
from make_child import CHILD, REPOSITORY, as_text, committed, make_all, read_card
from scripts.errors import InputError

SOFTWARE = ("torch", "monai", "numpy")


def bundle_command(folder: Path, *configs: str, **settings: Any) -> list[str]:
    """The command line that runs configurations of a bundle, one on top of the other."""
    files = [str(folder / "configs" / f"{config}.json") for config in configs]
    options = {"bundle_root": folder, "config_file": files[0] if len(files) == 1 else str(files), **settings}
    command = ["-m", "monai.bundle", "run"]
    return command + [part for name, value in options.items() for part in (f"--{name}", str(value))]


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
    text = shlex.join(["python", *command]).replace(f"{REPOSITORY}/", "")
    return text.replace(str(data), "DATA").replace("'\"'\"'", '"')


def train(name: str, made: Mapping[str, Any], data: Path, runs: Path) -> str:
    """
    Fine-tune a child by its own configurations; its best model goes to ``models/model.pt``.

    Args:
        name: of the child.
        made: its entry of ``committed.json``.
        data: folder of the data sets.
        runs: folder of the run.

    Returns:
        the command.
    """
    folder = REPOSITORY / "downstream" / name
    where: dict[str, Any] = {"dataset_dir": data / made["data"], "output_dir": runs}
    command = bundle_command(folder, "train", **where, pretrained=PRETRAINED, **made["training"])
    run([*command, "--resume", "True"], runs / "train.log")
    shutil.copyfile(runs / "model.pt", folder / "models" / "model.pt")
    return shown(command, data).replace(str(runs), f"runs/{name}")


def measure(name: str, made: Mapping[str, Any], data: Path, runs: Path) -> dict[str, Any]:
    """
    Evaluate the weights of a child on the test cases.

    Args:
        name: of the child.
        made: its entry of ``committed.json``.
        data: folder of the data sets.
        runs: folder of the run.

    Returns:
        the model card, without the command that made the weights.
    """
    folder = REPOSITORY / "downstream" / name
    split = {key: value for key, value in made["training"].items() if key.endswith("_fraction")}
    where: dict[str, Any] = {"dataset_dir": data / made["data"], "output_dir": runs / "test"}
    command = bundle_command(folder, "train", "evaluate", **where, **split)
    log = run(command, runs / "evaluate.log")
    counts = next(line for line in log.splitlines() if line.endswith("test cases"))
    steps = " ".join(f"{key} {value}" for key, value in made["training"].items())
    return {
        "trained": True,
        "summary": f"Fine-tuned from the pre-trained backbone on a CPU ({steps}; {counts}, split by subject, seed 0): "
        "a short run. Measured on the test cases, whose subjects were not trained on"
        + (", in the grid of the scan:" if name.endswith("segmentation") else ":"),
        "evaluation": shown(command, data).replace(str(runs), f"runs/{name}"),
        "results": json.loads((runs / "test" / "summary.json").read_text(encoding="utf-8")),
        **({"limits": made["limits"]} if "limits" in made else {}),
        "sha256": hashlib.sha256((folder / "models" / "model.pt").read_bytes()).hexdigest(),
        "software": {package: version(package) for package in SOFTWARE},
    }


@command("ship_weights")
def main(argv: Sequence[str] | None = None) -> None:
    """See ``--help``."""
    parser = Parser(prog="ship_weights", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", metavar="NAME", nargs="*", help="children (default: all that are trained)")
    default = Path(os.environ.get("GVSL_DATA", REPOSITORY.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=default, help="folder of the data sets")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "runs" / "children", help="folder of the runs")
    parser.add_argument("--measure", action="store_true", help="evaluate the weights that are there")
    args = parser.parse_args(argv)
    trained = {name: made for name, made in committed().items() if "training" in made}
    unknown = [name for name in args.names if name not in trained]
    if unknown:
        parser.error(f"no trained child is called {unknown[0]}: {', '.join(trained)}")
    for name in args.names or trained:
        runs = args.out / name
        before = read_card(name)
        made = {key: before[key] for key in ("command", "pretrained_sha256") if key in before}
        if not args.measure:
            pretrained = hashlib.sha256(PRETRAINED.read_bytes()).hexdigest()
            made = {"command": train(name, trained[name], args.data, runs), "pretrained_sha256": pretrained}
        card = measure(name, trained[name], args.data, runs) | made
        (CHILD / "cards" / f"{name}.json").write_text(as_text(card), encoding="utf-8")
        print(f"{name}: its card is written")
    make_all(REPOSITORY / "downstream")


if __name__ == "__main__":
    sys.exit(main())
