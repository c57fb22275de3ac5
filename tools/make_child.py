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
"""Make a child bundle from the description of a labelled data set: ``python tools/make_child.py DATASET NAME``."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from child.choices import Choices, choose
from child.documents import data_license, metadata, readme

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "bundle"))

from scripts.errors import InputError  # noqa: E402

TEMPLATES = Path(__file__).parent / "child" / "segmentation"
MODULES = ("__init__", "backbone", "blocks", "cases", "checkpoints", "data", "errors", "scans", "scores", "transfer")
"""What a segmentation child needs of the parent's ``scripts``."""


class _Parser(argparse.ArgumentParser):
    """A parser that states a mistake in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


def _parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = _Parser(prog="make_child", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("dataset", metavar="DATASET", type=Path, help="folder with dataset.json, imagesTr, labelsTr")
    parser.add_argument("name", metavar="NAME", help="<organ>_<modality>_<task>, for example liver_ct_segmentation")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "downstream", help="where the bundle's folder goes")
    parser.add_argument("--pixdim", type=float, nargs=3, help="voxel size, mm (default: the data's median)")
    parser.add_argument("--patch_size", type=int, nargs=3, help="voxels (default: the data's median, at most 96)")
    parser.add_argument("--intensity", choices=["percentiles", "window"], help="default: window for CT")
    parser.add_argument("--window", type=float, nargs=2, help="Hounsfield units (default: -1024 1024)")
    parser.add_argument("--features", type=int, nargs="+", help="channels of the backbone (default: by the patch)")
    parser.add_argument("--subject_key", help="regular expression that tells subjects apart in a path")
    parser.add_argument("--force", action="store_true", help="make an existing bundle again; its models/ stay")
    return parser


def configurations(choices: Choices) -> dict[str, str]:
    """
    The bundle's configurations: the templates with the settings chosen.

    Args:
        choices: settings by config id.

    Returns:
        text by file name.
    """
    texts = {}
    for path in sorted(TEMPLATES.glob("*.json")):
        config = json.loads(path.read_text(encoding="utf-8"))
        config.update({key: value for key, value in choices.settings.items() if key in config})
        texts[path.name] = as_text(config)
    texts["metadata.json"] = as_text(metadata(choices))
    return texts


def as_text(content: dict[str, Any]) -> str:
    """JSON indented by 4, with lists of numbers on one line."""
    text = json.dumps(content, indent=4)
    flat = re.sub(r"\[\s+([-\d.,\s]+?)\s+\]", lambda m: "[" + re.sub(r"\s+", " ", m[1]) + "]", text)
    return flat + "\n"


def make_child(choices: Choices, folder: Path) -> None:
    """
    Write a bundle that runs with MONAI alone. The same choices give the same bytes; ``models/`` is left alone.

    Args:
        choices: name, settings and description.
        folder: of the bundle.
    """
    for part in ("configs", "scripts", "docs"):
        shutil.rmtree(folder / part, ignore_errors=True)
        (folder / part).mkdir(parents=True)
    (folder / "models").mkdir(exist_ok=True)
    shutil.copyfile(REPOSITORY / "bundle" / "LICENSE", folder / "LICENSE")
    shutil.copyfile(REPOSITORY / "bundle" / "configs" / "logging.conf", folder / "configs" / "logging.conf")
    for module in MODULES:
        shutil.copyfile(REPOSITORY / "bundle" / "scripts" / f"{module}.py", folder / "scripts" / f"{module}.py")
    for name, text in configurations(choices).items():
        (folder / "configs" / name).write_text(text, encoding="utf-8")
    (folder / "docs" / "README.md").write_text(readme(choices), encoding="utf-8")
    (folder / "docs" / "data_license.txt").write_text(data_license(choices), encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run the command.

    Args:
        argv: its arguments, those of the process by default.

    Returns:
        the exit code.
    """
    parser = _parser()
    args = parser.parse_args(argv)
    if not re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)+_segmentation", args.name) or "_v" in args.name:
        parser.error(f"NAME is <organ>_<modality>_segmentation in lower case without '_v', not '{args.name}'")
    folder = args.out / args.name
    if folder.exists() and not args.force:
        parser.error(f"{folder} exists: pass --force to make it again")
    given = {key: getattr(args, key) for key in ("pixdim", "patch_size", "intensity", "window", "features")}
    given["subject_key"] = args.subject_key
    try:
        choices = choose(args.dataset, args.name, {key: value for key, value in given.items() if value is not None})
        make_child(choices, folder)
    except InputError as error:
        print(f"make_child: error: {error}", file=sys.stderr)
        return 1
    for key, value in choices.settings.items():
        shown = [entry["name"] for entry in value] if key == "classes" else value
        print(f"{key:14}{shown}   ({choices.reasons.get(key, 'from dataset.json')})")
    print(f"made {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
