# SPDX-License-Identifier: Apache-2.0
"""Whether a bundle holds the code that its configurations name: looked up without running it, and imported."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from scripts.errors import InputError

NAMED = re.compile(r"\bscripts(?:\.\w+)+")
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
OWN_NAMES = (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
"""Expressions with names of their own."""
IMPORT = """
import sys, json
sys.path.insert(0, sys.argv[1])
from importlib import import_module
for name in json.loads(sys.argv[2]):
    parts = name.split(".")
    for count in range(len(parts) - 1, 0, -1):
        try:
            value = import_module(".".join(parts[:count]))
            break
        except ModuleNotFoundError as error:
            if error.name != ".".join(parts[:count]):
                raise
    for part in parts[count:]:
        value = getattr(value, part)
"""
"""A program that imports components: the folder of ``scripts``, and a JSON list of names."""


def check_code(files: Mapping[str, bytes], source: str | Path) -> None:
    """
    Refuse a bundle that lacks a component which a configuration names, or a module which another one imports. Nothing
    of it is run.

    Args:
        files: content by path within the bundle's folder.
        source: where it comes from, for messages.

    Raises:
        InputError: naming the file and what is missing.
    """
    modules = _Modules(files)
    for name, path in named_components(files).items():
        module, *rest = modules.split(name)
        if module not in modules.paths or (rest and not modules.holds(module, rest[0])):
            raise InputError(f"{source}: {path} names {name}, which is not in the bundle: put its code into scripts")
    for module in modules.paths:
        for imported, name in modules.imports(module):
            if not modules.holds(imported, name):
                raise InputError(f"{source}: {modules.paths[module]} imports {imported}.{name}, which is not there")


def import_code(files: Mapping[str, bytes], source: str | Path) -> None:
    """
    Import everything that the configurations name, from the bundle's files alone, in a process of its own.

    Args:
        files: content by path within the bundle's folder.
        source: where it comes from, for messages.

    Raises:
        InputError: with the last line of Python's message.
    """
    names = tuple(sorted(named_components(files)))
    code = frozenset((path, content) for path, content in files.items() if path.startswith("scripts/"))
    problem = _import(names, code)
    if problem:
        raise InputError(f"{source}: its scripts do not import: {problem}")


@cache
def _import(names: tuple[str, ...], code: frozenset[tuple[str, bytes]]) -> str:
    """What Python says last when it cannot import the components; bundles with the same code are tried once."""
    with tempfile.TemporaryDirectory() as folder:
        for path, content in code:
            target = Path(folder, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        command = [sys.executable, "-c", IMPORT, folder, json.dumps(names)]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.stderr.strip().splitlines()[-1] if done.returncode else ""


def named_components(files: Mapping[str, bytes]) -> dict[str, str]:
    """The first configuration that names it, by dotted name of a component of ``scripts``."""
    found: dict[str, str] = {}
    for path in sorted(files):
        if path.startswith(("configs/", "models/")) and path.endswith(".json"):
            for name in NAMED.findall(files[path].decode("utf-8", errors="replace")):
                found.setdefault(name, path)
    return found


class _Modules:
    """
    The modules of a bundle's ``scripts`` and the names that each of them binds.

    Args:
        files: content by path within the bundle's folder.
    """

    def __init__(self, files: Mapping[str, bytes]) -> None:
        python = sorted(path for path in files if path.startswith("scripts/") and path.endswith(".py"))
        self.paths = {path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): path for path in python}
        self.trees = {module: ast.parse(files[path]) for module, path in self.paths.items()}

    def split(self, name: str) -> list[str]:
        """The longest module that a dotted name begins with, and the names that follow."""
        module = name
        rest: list[str] = []
        while module not in self.paths and "." in module:
            module, _, last = module.rpartition(".")
            rest.insert(0, last)
        return [module, *rest]

    def imports(self, module: str) -> Iterator[tuple[str, str]]:
        """Modules of the bundle that a module imports from, and the names."""
        package = module if self.paths[module].endswith("__init__.py") else module.rpartition(".")[0]
        for node in ast.walk(self.trees[module]):
            if isinstance(node, ast.ImportFrom) and node.level:
                base = package.split(".")[: len(package.split(".")) - node.level + 1]
                target = ".".join([*base, *([node.module] if node.module else [])])
                yield from ((target, alias.name) for alias in node.names)

    def holds(self, module: str, name: str) -> bool:
        """Whether a module binds a name at its top level, or has a submodule of that name."""
        if f"{module}.{name}" in self.paths:
            return True
        bound: set[str] = set()
        for node in _top_level(self.trees[module]) if module in self.trees else ():
            if isinstance(node, DEFINITIONS):
                bound.add(node.name)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                bound |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                bound.add(node.id)
        return bool(bound & {name, "*", "__getattr__"})


def _top_level(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes below one, also those inside of ``if`` and ``try``, but nothing that has names of its own."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, (*DEFINITIONS, *OWN_NAMES)):
            yield from _top_level(child)
