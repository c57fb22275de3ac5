# SPDX-License-Identifier: Apache-2.0
"""Make the packages of a model zoo, ``dist/<name>_v<version>.zip``, or check one."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from child.modules import borrows
from child.weights import PRETRAINED, write_start
from command import Parser, command, make_folder
from make_child import committed
from scripts.errors import InputError
from zoo.archive import LARGE, check_zip, read_folder, write_zip
from zoo.code import import_code
from zoo.files import METADATA, REPOSITORY, check_files

RELEASES = "https://github.com/Project-MONAI/model-zoo/releases/download/hosting_storage_v1"


def _parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = Parser(prog="make_zoo", description=__doc__)
    parser.add_argument("bundles", metavar="BUNDLE", nargs="*", type=Path, help="folders (default: all)")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "dist", help="where to (default: dist)")
    parser.add_argument("--url", default=RELEASES, help=f"where the files of OUT will be (default: {RELEASES})")
    parser.add_argument("--check", metavar="ZIP", type=Path, help="check a zip, write nothing")
    parser.add_argument("--checksum", metavar="HEX", help="with --check: its SHA-1 or SHA-256")
    parser.add_argument("--model_info", metavar="FILE", type=Path, help="with --check: a model_info.json that lists it")
    return parser


def release(folder: Path, out: Path, url: str) -> tuple[str, dict[str, str], int]:
    """
    Write the package of one bundle, and what a pull request needs for files that are too large for the zoo. Weights of
    a child in the clone that nobody has trained are made anew: those that are there may begin with earlier ones of the
    parent.

    Args:
        folder: of the bundle.
        out: where to.
        url: where the files of ``out`` will be.

    Returns:
        name with version, its entry of ``model_info.json``, and the bytes of the zip.
    """
    files = read_folder(folder)
    try:
        name = json.loads(files[METADATA])["name"]
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"{folder}: {METADATA} is missing, or gives no name") from error
    if borrows(folder) and "training" not in committed().get(name, {}):
        write_start(folder, PRETRAINED)
        files = read_folder(folder)
    full = f"{name}_v{check_files(files, name, folder)['version']}"
    import_code(files, folder)
    path = out / f"{full}.zip"
    write_zip(files, name, path)
    check_zip(path)
    large = {file: content for file, content in files.items() if len(content) > LARGE}
    lines = ["large_files:"]
    for file, content in large.items():
        asset = "_".join([full, *Path(file).parts[1:]])
        (out / asset).write_bytes(content)
        lines += [f'  - path: "{file}"', f'    url: "{url}/{asset}"']
        lines += [f'    hash_val: "{hashlib.sha256(content).hexdigest()}"', '    hash_type: "sha256"']
    if large:
        (out / name).mkdir(exist_ok=True)
        (out / name / "large_files.yml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    content = path.read_bytes()
    entry = {"checksum": hashlib.sha1(content, usedforsecurity=False).hexdigest(), "source": f"{url}/{path.name}"}
    return full, entry, len(content)


@command("make_zoo")
def main(argv: Sequence[str] | None = None) -> None:
    """See ``--help``."""
    args = _parser().parse_args(argv)
    bundles = args.bundles or [REPOSITORY / "bundle", *sorted((REPOSITORY / "downstream").glob("*/"))]
    if args.check:
        metadata = check_zip(args.check, args.checksum, args.model_info)
        print(f"{args.check}: {metadata['name']} {metadata['version']} is complete and fits this machine")
        return
    make_folder(args.out)
    model_info = {}
    for folder in bundles:
        full, model_info[full], size = release(folder, args.out, args.url)
        print(f"{size / 1e6:8.2f} MB  {args.out / full}.zip")
    text = json.dumps(model_info, indent=4) + "\n"
    (args.out / "model_info.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
