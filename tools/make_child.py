# SPDX-License-Identifier: Apache-2.0
"""Make a child bundle from the description of a labelled data set: ``python tools/make_child.py DATASET NAME``."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from child.choices import Choices, choose
from child.documents import data_license, metadata, readme
from child.modules import write_scripts
from child.weights import PRETRAINED, backbone_of, write_start
from command import Parser, command, make_folder
from scripts.errors import InputError

REPOSITORY = Path(__file__).resolve().parents[1]
CHILD = Path(__file__).parent / "child"
DESCRIPTIONS = CHILD / "descriptions"
BUNDLE = REPOSITORY / "bundle"
TASKS = ("segmentation", "classification")
OVERLAYS = ("evaluate.json", "multi_gpu_train.json", "paper.json")
SCALAR = r'(?:"(?:[^"\\]|\\.)*"|[-\d.eE+]+|true|false|null)'
SHORT_LIST = re.compile(rf"\[\s*\n\s*({SCALAR}(?:,\s*\n\s*{SCALAR})*)\s*\n\s*\]")


def command_line() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = Parser(prog="make_child", description=__doc__)
    parser.add_argument(
        "dataset",
        metavar="DATASET",
        type=Path,
        nargs="?",
        help="folder with dataset.json, imagesTr, labelsTr; or a description of data that are elsewhere (a JSON file)",
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="<organ>_<modality>_<task>, as liver_ct_segmentation")
    parser.add_argument(
        "--out", type=Path, default=REPOSITORY / "downstream", help="where its folder goes (default: downstream)"
    )
    parser.add_argument("--pixdim", type=float, nargs=3, help="voxel size, mm (default: the data's median)")
    parser.add_argument(
        "--patch_size", type=int, nargs=3, help="segmentation, voxels (default: the median scan, at most 96^3)"
    )
    parser.add_argument("--spatial_size", type=int, nargs=3, help="classification, voxels of the whole scan")
    parser.add_argument(
        "--memory", type=float, help="GB that a training may take (default: patches of up to 96^3 voxels)"
    )
    parser.add_argument("--intensity", choices=["percentiles", "window"], help="default: window for CT")
    parser.add_argument("--window", type=float, nargs=2, help="Hounsfield units (default: -1024 1024)")
    parser.add_argument("--features", type=int, nargs="+", help="channels of the backbone (default: the model's)")
    parser.add_argument("--subject_key", help="regular expression that tells subjects apart in a path")
    parser.add_argument("--table", metavar="FILE", help="classification: CSV of the patients, below DATASET")
    parser.add_argument("--id", metavar="COLUMN", help="classification: the table's column of subjects")
    parser.add_argument("--target", metavar="COLUMN", help="classification: the table's column of classes")
    parser.add_argument(
        "--start", metavar="MODEL", type=Path, help="pre-trained model.pt whose backbone it starts with"
    )
    parser.add_argument("--force", action="store_true", help="make an existing bundle again; its models/ stay")
    parser.add_argument("--describe", action="store_true", help="write what was measured to tools/child/descriptions")
    parser.add_argument("--all", action="store_true", help="make all committed ones again, from their descriptions")
    return parser


def configurations(choices: Choices, card: Mapping[str, Any]) -> dict[str, str]:
    """
    The bundle's configurations: the templates with the settings chosen.

    Args:
        choices: settings by config id.
        card: what is known of the weights.

    Returns:
        text by file name.
    """
    texts = {}
    for path in sorted((CHILD / choices.task).glob("*.json")):
        config = json.loads(path.read_text(encoding="utf-8"))
        if path.name == "paper.json":
            config.update(choices.description.get("paper", {}))
            if choices.backbone is not None:  # which has channels of its own
                del config["features"]
        elif path.name not in OVERLAYS:
            config.update({key: value for key, value in choices.settings.items() if key in config})
            if choices.backbone is not None and "network_def" in config:
                config["network_def"]["backbone"] = dict(choices.backbone)
        texts[path.name] = as_text(config)
    if "preparation" in choices.description:
        config = json.loads((CHILD / "preparation" / f"{choices.description['preparation']}.json").read_text("utf-8"))
        config.update({key: value for key, value in choices.settings.items() if key in config})
        texts["prepare.json"] = as_text(config)
    texts["metadata.json"] = as_text(metadata(choices, card))
    return texts


def as_text(content: Mapping[str, Any]) -> str:
    """JSON indented by 4, with short lists and lists of numbers on one line."""

    def short(found: re.Match[str]) -> str:
        line = "[" + re.sub(r"\s*\n\s*", " ", found[1]) + "]"
        return found[0] if len(line) > 80 and '"' in line else line

    return SHORT_LIST.sub(short, json.dumps(content, indent=4)) + "\n"


def make_child(
    choices: Choices, folder: Path, start: Path | None = None, whole: bool = True, card: Mapping[str, Any] | None = None
) -> None:
    """
    Write a bundle that runs with MONAI alone. The same choices give the same bytes; weights that are there stay.

    Args:
        choices: name, settings and description.
        folder: of the bundle.
        start: pre-trained weights to begin ``models/model.pt`` with.
        whole: with a copy of the code, so that the folder works anywhere; else it works in the clone alone.
        card: what is known of its weights, see :func:`~child.documents.performance`.
    """
    card = card or ({"trained": False} if start else {})
    texts = configurations(choices, card)
    for part in ("configs", "docs"):
        shutil.rmtree(folder / part, ignore_errors=True)
        (folder / part).mkdir(parents=True)
    (folder / "models").mkdir(exist_ok=True)
    shutil.copyfile(BUNDLE / "LICENSE", folder / "LICENSE")
    shutil.copyfile(BUNDLE / "configs" / "logging.conf", folder / "configs" / "logging.conf")
    write_scripts(folder, whole)
    for name, text in texts.items():
        (folder / "configs" / name).write_text(text, encoding="utf-8")
    (folder / "docs" / "README.md").write_text(readme(choices, card), encoding="utf-8")
    (folder / "docs" / "data_license.txt").write_text(data_license(choices, card), encoding="utf-8")
    if start is not None and not (folder / "models" / "model.pt").exists():
        write_start(folder, start)


def given_settings(args: argparse.Namespace) -> dict[str, Any]:
    """The settings, by config id, that were given on the command line."""
    keys = ("pixdim", "patch_size", "spatial_size", "intensity", "window", "features", "subject_key")
    given = {key: getattr(args, key) for key in keys if getattr(args, key) is not None}
    if args.table or args.id or args.target:
        given["table"] = {"file": args.table, "id": args.id, "target": args.target}
    return given


def _make(args: argparse.Namespace) -> None:
    """Make one bundle and show what was chosen, and why."""
    given = given_settings(args)
    choices = choose(args.dataset, args.name, given, args.memory, args.start and backbone_of(args.start))
    folder = args.out / args.name
    if args.describe:
        folder = DESCRIPTIONS / f"{args.name}.json"
        folder.write_text(as_text(choices.described(given)), encoding="utf-8")
    else:
        new = not folder.exists()
        try:
            make_folder(folder)
            make_child(choices, folder, args.start)
        except InputError:
            if new:  # else the next attempt would find half a bundle
                shutil.rmtree(folder, ignore_errors=True)
            raise
    for key, value in choices.settings.items():
        shown = [entry["name"] for entry in value] if key == "classes" else value
        print(f"{key:20}{shown}   ({choices.reasons.get(key, 'from dataset.json')})")
    for note in choices.notes:
        print(f"note: {note}; --pixdim{'' if choices.task == 'segmentation' else ' and --spatial_size'} change it")
    print(f"made {folder}")


def make_all(out: Path) -> None:
    """
    Make the committed bundles again, from their descriptions and cards; those that nobody has trained get the start of
    their weights, which are not committed.

    Args:
        out: where their folders go.
    """
    for name, made in committed().items():
        choices = choose(DESCRIPTIONS / f"{name}.json", name, {})
        if "training" in made:
            make_child(choices, out / name, whole=False, card=read_card(name))
        else:
            (out / name / "models" / "model.pt").unlink(missing_ok=True)  # of other pre-trained weights
            make_child(choices, out / name, PRETRAINED, whole=False)
        print(f"made {out / name}")


def committed() -> dict[str, dict[str, Any]]:
    """What the committed bundles are made of, by name: their data, how settings were measured, and the training."""
    return json.loads((CHILD / "committed.json").read_text(encoding="utf-8"))


def read_card(name: str) -> dict[str, Any]:
    """The model card of a committed bundle that has been trained."""
    return json.loads((CHILD / "cards" / f"{name}.json").read_text(encoding="utf-8"))


@command("make_child")
def main(argv: Sequence[str] | None = None) -> None:
    """See ``--help``."""
    parser = command_line()
    args = parser.parse_args(argv)
    if args.all:
        make_all(args.out)
        return
    if args.dataset is None or args.name is None:
        parser.error("DATASET and NAME are needed (or --all)")
    if not re.fullmatch(rf"[a-z0-9]+(_[a-z0-9]+)+_({'|'.join(TASKS)})", args.name) or "_v" in args.name:
        parser.error(
            f"NAME is <organ>_<modality>_segmentation or ..._classification in lower case without '_v', not "
            f"'{args.name}'"
        )
    if (args.out / args.name).exists() and not (args.force or args.describe):
        parser.error(f"{args.out / args.name} exists: pass --force to make it again")
    _make(args)


if __name__ == "__main__":
    sys.exit(main())
