# SPDX-License-Identifier: Apache-2.0
"""The commands of the Makefile for every system: ``python tools/gvsl.py pretrain --data SCANS --out RUN [--id value]``.

Each shows the plain command that it runs. Options that a command does not know itself are passed on: ids of the
configuration, or options of the tool.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from command import Parser

REPOSITORY = Path(__file__).resolve().parents[1]
BUNDLE, TOOLS = REPOSITORY / "bundle", REPOSITORY / "tools"
PHANTOMS = REPOSITORY / "data" / "phantoms"


def bundle_run(*configurations: Path) -> list[str]:
    """``monai.bundle run`` with configurations of which the later ones overlay the first."""
    names = ",".join(f"'{path.as_posix()}'" for path in configurations)
    return ["-m", "monai.bundle", "run", "--bundle_root", str(BUNDLE), "--config_file", f"[{names}]"]


def pretrain(args: argparse.Namespace) -> list[list[str]]:
    """Pre-train on a folder of scans, its grid planned from them; without a folder on built-in phantoms."""
    configs = BUNDLE / "configs"
    overlays = [configs / f"{name}.json" for name in args.overlay]
    if args.data:
        command = bundle_run(configs / "train.json", configs / "plan.json", *overlays)
        return [[*command, "--dataset_dir", args.data, "--output_dir", args.out or "runs/pretrain"]]
    command = bundle_run(configs / "train.json", configs / "demo.json", *overlays)
    return [*phantoms(args), [*command, "--dataset_dir", str(PHANTOMS), "--output_dir", args.out or "runs/demo"]]


def phantoms(args: argparse.Namespace) -> list[list[str]]:
    """Make the built-in phantom cohort."""
    return [[str(TOOLS / "make_phantoms.py"), str(PHANTOMS), "--subjects", str(args.subjects)]]


def report(args: argparse.Namespace) -> list[list[str]]:
    """One HTML page about a model, measured on a folder of scans."""
    settings = Path(args.model).with_name("settings.json")
    overlays = [BUNDLE / "configs" / "evaluate.json", *([settings] if settings.is_file() else [])]
    command = bundle_run(BUNDLE / "configs" / "train.json", *overlays)
    out = args.out or "runs/report"
    return [[*command, "--model", args.model, "--dataset_dir", args.data, "--output_dir", out]]


def probe(args: argparse.Namespace) -> list[list[str]]:
    """Will a model help on labelled scans? One HTML page with a verdict."""
    model = Path(args.model) if args.model else BUNDLE / "models" / "model.pt"
    settings = model.with_name("settings.json")
    overlays = [*([settings] if settings.is_file() else []), BUNDLE / "configs" / "probe.json"]
    command = bundle_run(BUNDLE / "configs" / "train.json", *overlays)
    return [[*command, "--model", str(model), "--dataset_dir", args.data, "--output_dir", args.out or "runs/probe"]]


def carry(args: argparse.Namespace) -> list[list[str]]:
    """Labels for a folder of scans from one labelled scan, or a few, with a page that says what to correct first."""
    configs = [BUNDLE / "configs" / f"{name}.json" for name in ("inference", "propagate", "plan", "carry")]
    model = Path(args.model) if args.model else BUNDLE / "models" / "model.pt"
    settings = model.with_name("settings.json")
    command = bundle_run(*configs, *([settings] if settings.is_file() else []))
    command += ["--model", str(model), "--atlas", args.atlas, "--atlas_label", args.label]
    return [[*command, "--dataset_dir", args.data, "--output_dir", args.out or "runs/carry"]]


def child(args: argparse.Namespace) -> list[list[str]]:
    """A child bundle for a labelled data set."""
    out = ["--out", args.out] if args.out else []
    return [[str(TOOLS / "make_child.py"), args.dataset, args.name, *out]]


def zoo(args: argparse.Namespace) -> list[list[str]]:
    """The packages of a model zoo, parent and children."""
    return [[str(TOOLS / "make_zoo.py"), *(["--out", args.out] if args.out else [])]]


COMMANDS: dict[str, tuple[Callable[[argparse.Namespace], list[list[str]]], tuple[str, ...]]] = {
    "phantoms": (phantoms, ()),
    "pretrain": (pretrain, ()),
    "report": (report, ("model", "data")),
    "probe": (probe, ("data",)),
    "carry": (carry, ("atlas", "label", "data")),
    "child": (child, ("dataset", "name")),
    "zoo": (zoo, ()),
}
"""Functions that give the commands to run, and the options that each needs."""
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
    for name, (function, needed) in COMMANDS.items():
        part = parts.add_parser(name, prog=f"gvsl {name}", help=function.__doc__, allow_abbrev=False)
        for option in dict.fromkeys(("data", "out", "model", *needed)):
            part.add_argument(f"--{option}", required=option in needed)
        part.add_argument("--overlay", action="append", default=[], help="a further configuration, such as segresnet")
        part.add_argument("--subjects", type=int, default=12, help="phantoms to make")
    args, passed_on = parser.parse_known_args(argv)
    for before, word in zip(["", *passed_on], passed_on, strict=False):
        follows = before.startswith("-") and "=" not in before
        if args.command in OF_MONAI and not word.startswith("-") and not follows:
            parser.error(f"'{word}' belongs to no option: write a pattern, or a list of several values, in quotes")
    commands = COMMANDS[args.command][0](args)
    for number, command in enumerate(commands):
        whole = [sys.executable, *command, *(passed_on if number == len(commands) - 1 else [])]
        print(f"+ {subprocess.list2cmdline(whole)}", flush=True)
        code = subprocess.run(whole, check=False).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
