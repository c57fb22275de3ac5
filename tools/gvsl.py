# SPDX-License-Identifier: Apache-2.0
"""The commands of the Makefile for every system: ``python tools/gvsl.py pretrain --data SCANS --out RUN [--id value]``.

Each shows the plain command that it runs. Options that a command does not know itself are passed on: ids of the
configuration, or options of the tool.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from command import Parser

REPOSITORY = Path(__file__).resolve().parents[1]
BUNDLE, TOOLS = REPOSITORY / "bundle", REPOSITORY / "tools"
PHANTOMS = REPOSITORY / "data" / "phantoms"


def bundle_run(*configurations: Path) -> list[str]:
    """``monai.bundle run`` with configurations of which the later ones overlay the first."""
    names = ",".join(f"'{path.as_posix()}'" for path in configurations)
    return ["-m", "monai.bundle", "run", "--bundle_root", str(BUNDLE), "--config_file", f"[{names}]"]


def overlays(args: argparse.Namespace, *own: str) -> list[Path]:
    """
    The further configurations that were asked for.

    Args:
        args: of the command.
        own: names of the configurations that it has anyway.

    Returns:
        their paths.

    Raises:
        argparse.ArgumentTypeError: where there is none, or it changes a part that the command does not have.
    """
    configs = BUNDLE / "configs"
    paths = [configs / f"{name}.json" for name in args.overlay]
    known = {key for name in own for key in json.loads((configs / f"{name}.json").read_bytes())}
    for path in paths:
        if not path.is_file():
            raise argparse.ArgumentTypeError(f"{path} does not exist: name a file of that folder, as --overlay resenc")
        for key in json.loads(path.read_bytes()):
            part, *inner = key.lstrip("+~").split("#")
            if inner and part not in known:
                raise argparse.ArgumentTypeError(
                    f"{path} changes {key}, and {args.command} has no '{part}': leave this --overlay out"
                )
    return paths


def weights(given: str | None) -> Path:
    """The file of weights that was named, or the one in a run's folder that was; the bundle's where none was."""
    path = Path(given) if given else BUNDLE / "models"
    return path / "model.pt" if path.is_dir() else path


def settings_of(model: Path) -> list[Path]:
    """
    The ``settings.json`` beside weights, as a list of configurations; an empty one where there is none.

    Raises:
        argparse.ArgumentTypeError: for one that is damaged.
    """
    path = model.with_name("settings.json")
    if not path.is_file():
        return []
    try:
        whole = isinstance(json.loads(path.read_bytes()), dict)
    except (OSError, ValueError):
        whole = False
    if not whole:
        raise argparse.ArgumentTypeError(
            f"{path} is damaged: copy it anew from the run of {model.name}, or move it away and give --pixdim, "
            "--spatial_size and --intensity yourself"
        )
    return [path]


def pretrain(args: argparse.Namespace) -> list[list[str]]:
    """Pre-train on a folder of scans, its grid planned from them; without a folder on built-in phantoms."""
    configs = BUNDLE / "configs"
    further, start = overlays(args, "train", "plan"), ["--pretrained", str(weights(args.model))] if args.model else []
    if args.data:
        if args.subjects is not None:
            raise argparse.ArgumentTypeError("--subjects is of phantoms, --data of scans: leave one of them out")
        command = bundle_run(configs / "train.json", configs / "plan.json", *further)
        return [[*command, "--dataset_dir", args.data, "--output_dir", args.out or "runs/pretrain", *start]]
    command = bundle_run(configs / "train.json", configs / "demo.json", *further)
    command += ["--dataset_dir", str(PHANTOMS), "--output_dir", args.out or "runs/demo", *start]
    return [make_phantoms(args, PHANTOMS), command]


def make_phantoms(args: argparse.Namespace, folder: Path | str) -> list[str]:
    """The command that makes phantoms in a folder."""
    subjects = 12 if args.subjects is None else args.subjects
    return [str(TOOLS / "make_phantoms.py"), str(folder), "--subjects", str(subjects)]


def phantoms(args: argparse.Namespace) -> list[list[str]]:
    """Make the built-in phantom cohort."""
    return [make_phantoms(args, args.out or PHANTOMS)]


def report(args: argparse.Namespace) -> list[list[str]]:
    """One HTML page about a model, measured on a folder of scans."""
    model = weights(args.model)
    further = [BUNDLE / "configs" / "evaluate.json", *settings_of(model)]
    command = bundle_run(BUNDLE / "configs" / "train.json", *further, *overlays(args, "train", "evaluate"))
    out = args.out or "runs/report"
    return [[*command, "--model", str(model), "--dataset_dir", args.data, "--output_dir", out]]


def probe(args: argparse.Namespace) -> list[list[str]]:
    """Will a model help on labelled scans? One HTML page with a verdict."""
    model = weights(args.model)
    further = [*settings_of(model), BUNDLE / "configs" / "probe.json"]
    command = bundle_run(BUNDLE / "configs" / "train.json", *further, *overlays(args, "train", "probe"))
    return [[*command, "--model", str(model), "--dataset_dir", args.data, "--output_dir", args.out or "runs/probe"]]


def carry(args: argparse.Namespace) -> list[list[str]]:
    """Labels for a folder of scans from one labelled scan, or a few, with a page that says what to correct first."""
    own = ("inference", "propagate", "plan", "carry")
    configs = [BUNDLE / "configs" / f"{name}.json" for name in own]
    model = weights(args.model)
    command = bundle_run(*configs, *settings_of(model), *overlays(args, *own))
    command += ["--model", str(model), "--atlas", args.atlas, "--atlas_label", args.label]
    return [[*command, "--dataset_dir", args.data, "--output_dir", args.out or "runs/carry"]]


def child(args: argparse.Namespace) -> list[list[str]]:
    """A child bundle for a labelled data set."""
    out = ["--out", args.out] if args.out else []
    start = ["--start", str(weights(args.model))] if args.model else []
    return [[str(TOOLS / "make_child.py"), args.dataset, args.name, *out, *start]]


def zoo(args: argparse.Namespace) -> list[list[str]]:
    """The packages of a model zoo, parent and children."""
    return [[str(TOOLS / "make_zoo.py"), *(["--out", args.out] if args.out else [])]]


Command = Callable[[argparse.Namespace], list[list[str]]]
COMMANDS: dict[str, tuple[Command, tuple[str, ...], tuple[str, ...]]] = {
    "phantoms": (phantoms, (), ("out", "subjects")),
    "pretrain": (pretrain, (), ("data", "out", "model", "overlay", "subjects")),
    "report": (report, ("model", "data"), ("out", "overlay")),
    "probe": (probe, ("data",), ("out", "model", "overlay")),
    "carry": (carry, ("atlas", "label", "data"), ("out", "model", "overlay")),
    "child": (child, ("dataset", "name"), ("out", "model")),
    "zoo": (zoo, (), ("out",)),
}
"""Functions that give the commands to run, the options that each needs, and those that it takes besides."""
HOW: dict[str, dict[str, Any]] = {
    "overlay": {"action": "append", "default": [], "help": "a further configuration, such as segresnet"},
    "subjects": {"type": int, "help": "phantoms to make (default: 12)"},
}
"""How options are read that are no single text."""
OF_MONAI = ("pretrain", "report", "probe", "carry")
"""Those that end in ``monai.bundle run``, where every option has one value."""


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run a command.

    Args:
        argv: its name and options, those of the process by default.

    Returns:
        the exit code of what was run.
    """
    parser = Parser(prog="gvsl", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    for name, (function, needed, others) in COMMANDS.items():
        part = parts.add_parser(name, prog=f"gvsl {name}", help=function.__doc__, allow_abbrev=False)
        for option in (*needed, *others):
            also = ["--pretrained"] if (name, option) == ("pretrain", "model") else []
            part.add_argument(f"--{option}", *also, required=option in needed, **HOW.get(option, {}))
    args, passed_on = parser.parse_known_args(argv)
    function, needed, others = COMMANDS[args.command]
    known = {option for _, *groups in COMMANDS.values() for group in groups for option in group}
    for word in passed_on:
        option = word.partition("=")[0].removeprefix("--")
        if word.startswith("--") and option in known:
            named = ", ".join(f"--{each}" for each in (*needed, *others))
            parser.error(f"{args.command} does not use --{option}: its own options are {named}")
    for before, word in zip(["", *passed_on], passed_on, strict=False):
        follows = before.startswith("-") and "=" not in before
        if args.command in OF_MONAI and not word.startswith("-") and not follows:
            parser.error(f"'{word}' belongs to no option: write a pattern, or a list of several values, in quotes")
    try:
        commands = function(args)
    except argparse.ArgumentTypeError as error:
        parser.error(str(error))
    for number, words in enumerate(commands):
        whole = [sys.executable, *words, *(passed_on if number == len(commands) - 1 else [])]
        print(f"+ {subprocess.list2cmdline(whole)}", flush=True)
        code = subprocess.run(whole, check=False).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
