# SPDX-License-Identifier: Apache-2.0
"""What a model zoo asks of a bundle's files, whether they lie in a folder or in a zip."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jsonschema import Draft201909Validator
from scripts.errors import InputError, refuse_unsupported

from .code import check_code

REPOSITORY = Path(__file__).resolve().parents[2]
SCHEMA = Path(__file__).parent / "schema" / "meta_schema_20240725.json"
METADATA, WEIGHTS = "configs/metadata.json", "models/model.pt"
NEEDED = (
    "LICENSE",
    METADATA,
    "configs/train.json",
    "configs/inference.json",
    "docs/README.md",
    "docs/data_license.txt",
    WEIGHTS,
)
BELONGS = re.compile(
    r"LICENSE|models/(\w+/)?model\.pt|models/\w+/settings\.json|configs/[\w.-]+\.(json|conf)|"
    r"scripts/[\w/-]+\.(py|html|css)|docs/[\w.-]+\.(md|txt|png|csv)"
)
"""Further models lie in folders of their own, each with the settings of its run."""
HEADINGS = (
    "overview",
    "data",
    "training configuration",
    "memory",
    "input",
    "performance",
    "commands",
    "limitations",
    "references",
    "license",
)
"""Sections of the zoo's template for ``docs/README.md``."""
NAME = re.compile(r"(?!.*_v)[a-z0-9]+(_[a-z0-9]+){2,}")
VERSION = re.compile(r"\d\.\d\.\d")  # the zoo sorts versions as text
MACHINE = re.compile(r"(?<![\w.~/])/(home|Users|root|work|workspace|tmp|mnt|media|opt|srv|var)/[\w.-]|\b[A-Za-z]:\\\w")
"""Paths that only exist on somebody's machine."""


def check_files(files: Mapping[str, bytes], name: str, source: str | Path) -> dict[str, Any]:
    """
    Refuse a bundle that a model zoo, or a stranger's machine, would stumble over.

    Args:
        files: content by path within the bundle's folder.
        name: of the bundle, its folder's in the zip.
        source: where it comes from, for messages.

    Returns:
        the metadata.

    Raises:
        InputError: naming the file and what is wrong with it.
    """
    for path in NEEDED:
        if path not in files:
            raise InputError(f"{source}: {path} is missing")
    for path, content in files.items():
        if not BELONGS.fullmatch(path) or "__pycache__" in path:
            raise InputError(f"{source}: {path} does not belong into a release: remove it")
        if path.endswith((".json", ".conf", ".py", ".html", ".css", ".md", ".txt")):
            _check_text(content, path, source)
    metadata = check_metadata(files[METADATA], name, source)
    sections = [line.lstrip("# ").lower() for line in files["docs/README.md"].decode().splitlines() if line[:1] == "#"]
    for heading in HEADINGS:
        if not any(heading in section for section in sections):
            raise InputError(f"{source}: docs/README.md has no section '{heading}', which the zoo's template has")
    check_code(files, source)
    for path in files:
        if path.endswith(".pt"):
            _check_weights(files[path], f"{source}: {path}")
    return metadata


def check_metadata(content: bytes, name: str, source: str | Path) -> dict[str, Any]:
    """
    Refuse metadata of another schema, name or version, or for other versions of MONAI and torch than those in use.

    Args:
        content: of ``configs/metadata.json``.
        name: of the bundle.
        source: where it comes from, for messages.

    Returns:
        the metadata.
    """
    where = f"{source}: {METADATA}"
    try:
        metadata = json.loads(content)
    except ValueError as error:
        raise InputError(f"{where} is not valid JSON ({error})") from error
    named = metadata.get("schema") if isinstance(metadata, dict) else None
    if not isinstance(named, str) or named.rsplit("/", 1)[-1] != SCHEMA.name:
        raise InputError(f"{where} is of schema {named!r}, not {SCHEMA.name}")
    validator = Draft201909Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
    for problem in validator.iter_errors(metadata):
        raise InputError(f"{where} does not fit {SCHEMA.name}: {problem.json_path} {problem.message[:200]}")
    if metadata.get("name") != name or not NAME.fullmatch(name):
        raise InputError(f"{where} names the bundle {metadata.get('name')!r}; it must be {name!r}, as the folder is")
    version = metadata["version"]
    if not VERSION.fullmatch(version) or version not in metadata.get("changelog", {}):
        raise InputError(f"{where} is of version {version!r}: three single digits, with an entry in the changelog")
    refuse_unsupported(metadata, where)
    return metadata


def _check_text(content: bytes, path: str, source: str | Path) -> None:
    """Refuse a text that names a path of somebody's machine."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{source}: {path} is not UTF-8 text") from error
    for number, line in enumerate(text.splitlines(), 1):
        if MACHINE.search(line) or str(REPOSITORY) in line:
            raise InputError(f"{source}: {path}, line {number}, names a path of one machine: write a relative one")


def _check_weights(content: bytes, where: str) -> None:
    """Refuse weights that are no plain state dictionary."""
    try:
        weights = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # damaged pickles raise anything
        raise InputError(f"{where} is damaged, or holds more than tensors") from error
    if not isinstance(weights, Mapping) or not weights or "optimizer" in weights:
        raise InputError(f"{where} is no plain state dictionary: take the model.pt of a training run")
    for key, value in weights.items():
        if not isinstance(value, torch.Tensor) or not value.isfinite().all():
            raise InputError(f"{where}: its entry {key!r} is no tensor of finite numbers")
