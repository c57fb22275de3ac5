# SPDX-License-Identifier: Apache-2.0

"""The order of the packages in CONTRIBUTING.md is kept by every import, and modules stay short."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import pytest

LONGEST = 260
"""Lines of a module."""


@pytest.fixture(scope="module")
def scripts(repository: Path) -> Path:
    return repository / "bundle" / "scripts"


@pytest.fixture(scope="module")
def layers(repository: Path) -> list[str]:
    """Packages and modules of bundle/scripts as CONTRIBUTING.md lists them, each may import from those before it."""
    text = (repository / "CONTRIBUTING.md").read_text(encoding="utf-8")
    tree = text.partition("\nbundle/scripts")[2].partition("\ndownstream")[0]
    entries = (takewhile(re.compile(r"\w+(/|\.py)$").match, line.split()) for line in tree.splitlines()[1:])
    return [entry.removesuffix("/").removesuffix(".py") for line in entries for entry in line]


def imports(path: Path, scripts: Path) -> Iterator[str]:
    """What a module imports from bundle/scripts, by the name of the package or module there; also within functions."""
    package = path.relative_to(scripts).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = (*package[: len(package) + 1 - node.level], *(node.module or "").split("."))
            within = [part for part in base if part]
            yield from within[:1] or (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            yield from (name.split(".")[1] for name in names if name.startswith("scripts."))


def test_every_package_is_listed_once(scripts: Path, layers: list[str]) -> None:
    there = {path.stem for path in scripts.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert sorted(layers) == sorted(there - {"__init__"})


def test_imports_lead_upwards_in_the_list(scripts: Path, layers: list[str]) -> None:
    """So there is no cycle of packages either."""
    found = []
    for path in scripts.rglob("*.py"):
        own = path.relative_to(scripts).with_suffix("").parts[0]
        before = layers[: layers.index(own) + 1] if own in layers else []
        found += [f"{path} imports {name}" for name in imports(path, scripts) if name not in before]
    assert found == []


def test_an_import_from_below_is_seen(tmp_path: Path) -> None:
    lines = ("from ..errors import A", "from . import own", "from .. import plots", "import scripts.data", "import os")
    (tmp_path / "networks").mkdir()
    (tmp_path / "networks" / "a.py").write_text("def f():\n    " + "\n    ".join(lines), encoding="utf-8")
    found = list(imports(tmp_path / "networks" / "a.py", tmp_path))
    assert found == ["errors", "networks", "plots", "data"]


def test_modules_are_short(scripts: Path) -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in scripts.rglob("*.py")}
    assert {path.name: lines for path, lines in lengths.items() if lines > LONGEST} == {}
