# SPDX-License-Identifier: Apache-2.0
"""The code of a child bundle: the parent's, whole in a folder that stands alone, found beside it in the clone."""

from __future__ import annotations

import shutil
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[2] / "bundle" / "scripts"
BORROWED = Path(__file__).with_name("borrowed_scripts.txt")
"""``scripts/__init__.py`` of a child in the clone."""


def borrows(folder: Path) -> bool:
    """Whether a bundle is a child in the clone, whose code is the parent's."""
    path = folder / "scripts" / "__init__.py"
    return path.is_file() and path.read_bytes() == BORROWED.read_bytes()


def write_scripts(folder: Path, whole: bool) -> None:
    """
    Put the code into a child bundle.

    Args:
        folder: of the bundle.
        whole: a copy of all of it, so that the folder works anywhere; else a module that finds it in the clone.
    """
    target = folder / "scripts"
    shutil.rmtree(target, ignore_errors=True)
    if whole:
        shutil.copytree(SCRIPTS, target, ignore=shutil.ignore_patterns("__pycache__"))
        return
    target.mkdir(parents=True)
    shutil.copyfile(BORROWED, target / "__init__.py")
