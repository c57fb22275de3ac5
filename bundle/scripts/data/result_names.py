# SPDX-License-Identifier: Apache-2.0
"""What results are called: after the scans they come from, each by what tells it apart, never two alike."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.data import FolderLayoutBase

from ..errors import InputError
from ..files import write_text
from .tables import read_own

VOLUME_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
SINGLE_FILE_ENDINGS = (*VOLUME_ENDINGS, ".dcm", ".ima")
LONGEST = 110
"""Bytes of a scan's part in a file's name, which may have 255 and is of two scans, with an ending."""
RECORD = "results.csv"
"""Table in the folder of results: whose they are."""


def split_ending(path: str | Path) -> tuple[str, str]:
    """A file's name without the ending of its format, and that ending; a folder's name is whole."""
    name = Path(path).name
    ending = next((e for e in SINGLE_FILE_ENDINGS if name.lower().endswith(e) and len(name) > len(e)), "")
    return name[: len(name) - len(ending)], name[len(name) - len(ending) :]


def scan_name(path: str | Path) -> str:
    """A file's name without the ending of its format, or a folder's name."""
    return split_ending(path)[0]


def folded(name: str) -> str:
    """The name as a file system sees it that knows no upper and lower case, and writes accents in one way."""
    return unicodedata.normalize("NFC", name).casefold()


def _repeated(names: Sequence[str]) -> set[str]:
    return {name for name, count in Counter(map(folded, names)).items() if count > 1}


def result_names(paths: Sequence[str]) -> dict[str, str]:
    """
    A name for each scan of a run, as a part of a file's name.

    It is the name of the file or folder, where these differ (as BIDS has it: ``sub-01_ses-1_T1w``); else the path below
    the folder that all have in common, with ``_`` for its separators: ``case_00001_imaging``. What is longer than a
    file's name may be, with that of another scan beside it, is cut, with a digest at its end.

    Args:
        paths: of all scans of the run.

    Returns:
        name by path, no two alike, on file systems that know no upper and lower case either.

    Raises:
        InputError: naming two scans that no name tells apart.
    """
    found = list(dict.fromkeys(map(str, paths)))
    last = {path: scan_name(path) for path in found}
    if not _repeated(list(last.values())):
        return {path: _part(name) for path, name in last.items()}
    whole = {path: os.path.abspath(path) for path in found}
    common = os.path.commonpath([os.path.dirname(path) for path in whole.values()])
    below = {path: os.path.relpath(os.path.dirname(whole[path]), common) for path in found}
    names = {path: os.path.normpath(os.path.join(below[path], last[path])) for path in found}
    repeated = _repeated(list(names.values()))  # as a.nii and a.nrrd in one folder
    names = {path: name + split_ending(path)[1] * (folded(name) in repeated) for path, name in names.items()}
    result = {path: _part(name) for path, name in names.items()}
    if _repeated(list(result.values())):
        result = {path: _part(name, "__") for path, name in names.items()}
    refuse_repeated(result)
    return result


def _part(name: str, separator: str = "_") -> str:
    """A text as a part of a file's name."""
    for sign in ("/", "\\", ":"):
        name = name.replace(sign, separator)
    content = os.fsencode(name)
    if len(content) > LONGEST:
        name = (
            f"{content[: LONGEST - 10].decode(errors='ignore')}_{hashlib.blake2b(content, digest_size=4).hexdigest()}"
        )
    return name.strip() or "scan"


def refuse_repeated(names: Mapping[Any, str]) -> None:
    """
    Args:
        names: of results, by what they come from.

    Raises:
        InputError: for two that would be one file.
    """
    first: dict[str, Any] = {}
    for source, name in names.items():
        other = first.setdefault(folded(name), source)
        if other is not source:
            alike = folded(str(other)) == folded(str(source)) and str(other).casefold() != str(source).casefold()
            why = " (their names differ in how accents are stored)" if alike else ""
            raise InputError(
                f"{other} and {source} would both be written to {name}{why}: rename one of them, or give each a run "
                "and an --output_dir of its own"
            )


def read_record(folder: Path) -> dict[str, list[str]]:
    """Paths of the scans that the results of a folder come from, by their names; empty without a record."""
    rows = (list(row.values()) for row in read_own(folder / RECORD, "result"))
    return {name: [entry for entry in entries if entry] for name, *entries in rows}


def record_results(output_dir: str, sources: Mapping[str, Sequence[str]]) -> None:
    """
    Note whose results a run is about to write, in ``results.csv`` of its folder.

    Args:
        output_dir: folder of the run.
        sources: paths of the scans that a result comes from, by its name.

    Raises:
        InputError: when a result of other scans would be overwritten.
    """
    folder, wanted = Path(output_dir), {name: [os.path.abspath(p) for p in paths] for name, paths in sources.items()}
    refuse_repeated({tuple(paths): name for name, paths in wanted.items()})
    before = read_record(folder)
    known = {folded(name): name for name in before}
    for name, paths in wanted.items():
        there = known.get(folded(name), name)
        if before.get(there, paths) != paths:
            raise InputError(
                f"{folder} holds the result {there} of {' and '.join(before[there])}, which that of "
                f"{' and '.join(paths)} would overwrite: pass another --output_dir"
            )
    rows = {**before, **wanted}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["result", "scan", *(["moving scan"] if any(len(paths) > 1 for paths in rows.values()) else [])])
    writer.writerows([name, *paths] for name, paths in sorted(rows.items()))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output_dir {folder} cannot be written ({error.strerror}): pass another one") from error
    write_text(text.getvalue(), folder / RECORD)


def refuse_overwriting(inputs: Sequence[str | Path], outputs: Sequence[str | Path]) -> None:
    """
    Raises:
        InputError: for a result that would be written over a file that it is made from.
    """
    own = {folded(os.path.realpath(path)) for path in inputs}
    for path in outputs:
        if folded(os.path.realpath(path)) in own:
            raise InputError(f"{path} is an input of this run, and would be overwritten: pass another --output_dir")


class ResultLayout(FolderLayoutBase):
    """
    File names for MONAI's ``SaveImaged``, whose own are cut at the first dot and know no folders.

    Args:
        output_dir: where to, with the names that :func:`record_results` gave there.
        postfix: what follows the scan's name.
        extension: of the files.
    """

    def __init__(self, output_dir: str, postfix: str = "seg", extension: str = ".nii.gz") -> None:
        self.folder, self.ending = Path(output_dir), f"_{postfix}{extension}"

    def filename(self, subject: Any = "", idx: Any = None, **kwargs: Any) -> Path:  # type: ignore[override]
        """
        Args:
            subject: path of the scan.
            idx: not used.
            kwargs: not used.

        Returns:
            path of its result.
        """
        path = os.path.abspath(str(subject))
        named = {paths[0]: name for name, paths in read_record(self.folder).items()}
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / (named.get(path, scan_name(path)) + self.ending)
