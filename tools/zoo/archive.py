# SPDX-License-Identifier: Apache-2.0
"""Zips of bundles: written the same way every time, and looked at before anybody unpacks them."""

from __future__ import annotations

import hashlib
import json
import re
import stat
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from child.modules import SCRIPTS, borrows
from scripts.errors import InputError

from .files import check_files

LEFT_OUT = re.compile(
    r"(runs|data|eval)/.*|(.*/)?(__pycache__|\.[^/]*)(/.*)?|.*\.log|models/(README\.md|checkpoint.*\.pt)"
)
"""What work in a bundle's folder leaves behind."""
LARGE = 25 * 1000 * 1000
"""The zoo keeps no larger file in its repository, bytes."""


def read_folder(folder: Path) -> dict[str, bytes]:
    """
    A bundle's files, without what work in it left behind.

    Args:
        folder: of the bundle.

    Returns:
        content by path within the folder.

    Raises:
        InputError: when it is no bundle, or holds a link.
    """
    if not (folder / "configs").is_dir():
        raise InputError(f"{folder} is no bundle: it has no folder configs")
    files = _read(folder)
    if borrows(folder):
        files |= {name: content for name, content in _read(SCRIPTS.parent).items() if name.startswith("scripts/")}
    return files


def _read(folder: Path) -> dict[str, bytes]:
    files = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if LEFT_OUT.fullmatch(name) or LEFT_OUT.fullmatch(f"{name}/"):
            continue
        if path.is_symlink():
            raise InputError(f"{path} is a link: put what it leads to there")
        if path.is_file():
            files[name] = path.read_bytes()
    return files


def write_zip(files: Mapping[str, bytes], name: str, path: Path) -> None:
    """
    Write a release. The same files give the same bytes: names in order, one date, one mode.

    Args:
        files: content by path within the bundle's folder.
        name: of the single top folder.
        path: destination.
    """
    temporary = path.with_name(f".{path.name}.part")
    with zipfile.ZipFile(temporary, "w") as archive:
        for file in sorted(files):
            entry = zipfile.ZipInfo(f"{name}/{file}", date_time=(2020, 1, 1, 0, 0, 0))
            entry.create_system = 3  # Unix, on every system
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(entry, files[file], zipfile.ZIP_DEFLATED, compresslevel=9)
    temporary.replace(path)


def read_zip(path: Path) -> tuple[str, dict[str, bytes]]:
    """
    Read a release without unpacking it anywhere.

    Args:
        path: of the zip.

    Returns:
        the name of its single top folder, and content by path within it.

    Raises:
        InputError: when it is missing, damaged, or would write outside its folder.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist")
    files: dict[str, bytes] = {}
    tops = set()
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                inside = PurePosixPath(entry.filename)
                outside = inside.is_absolute() or ".." in inside.parts or re.search(r"\\|^\w:", entry.filename)
                if outside or stat.S_ISLNK(entry.external_attr >> 16):
                    raise InputError(f"{path}: {entry.filename!r} leads outside the bundle's folder: do not unpack it")
                tops.add(inside.parts[0])
                if not entry.is_dir():
                    if str(inside) in files:
                        raise InputError(f"{path}: {entry.filename} is there twice")
                    files[str(inside)] = archive.read(entry)  # its checksum is verified
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{path} is damaged, or no zip ({error}): download it again") from error
    if len(tops) != 1:
        raise InputError(f"{path} holds {len(tops)} top folders ({', '.join(sorted(tops))}), not one")
    (name,) = tops
    return name, {file.removeprefix(f"{name}/"): content for file, content in files.items()}


def check_zip(path: Path, checksum: str | None = None, model_info: Path | None = None) -> dict[str, Any]:
    """
    Refuse a zip that is damaged, not the one announced, unsafe, or no bundle for this machine's MONAI and torch.

    Args:
        path: of the zip, ``<name>_v<version>.zip``.
        checksum: SHA-1 or SHA-256 in hexadecimal.
        model_info: a file of the zoo's kind, in which the zip is entered under its name.

    Returns:
        the bundle's metadata.
    """
    name, files = read_zip(path)
    if model_info is not None:
        checksum = _announced(path.stem, model_info)
    if checksum is not None:
        kind = {40: "sha1", 64: "sha256"}.get(len(checksum))
        if kind is None or not re.fullmatch(r"[0-9a-fA-F]+", checksum):
            raise InputError(f"'{checksum}' is no checksum: SHA-1 has 40, SHA-256 64 hexadecimal digits")
        found = hashlib.new(kind, path.read_bytes()).hexdigest()
        if found != checksum.lower():
            raise InputError(f"{path} is not the file announced: its {kind} is {found}, not {checksum}")
    metadata = check_files(files, name, path)
    expected = f"{name}_v{metadata['version']}.zip"
    if path.name != expected:
        raise InputError(f"{path} holds {expected.removesuffix('.zip')}: its name must be {expected}")
    return metadata


def _announced(entry: str, model_info: Path) -> str:
    """The checksum that a file of the zoo's kind holds for a zip."""
    try:
        return json.loads(model_info.read_text(encoding="utf-8"))[entry]["checksum"]
    except OSError as error:
        raise InputError(f"{model_info} cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{model_info} has no entry '{entry}' with a checksum") from error
