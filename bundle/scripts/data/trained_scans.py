# SPDX-License-Identifier: Apache-2.0
"""Which scans a model was trained on: fingerprints that know a file again under any name, and tell no name."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from .dicom_series import find_series
from .itk_files import data_files

PART = 2**16
"""Bytes read at either end of a file."""
PLACES = 64
"""Places between the ends at which a file is read that is not compressed."""
RELEASED = Path("docs", "trained_on.csv")
"""Of a bundle: the scans that its weights were trained on, ``set``, ``scan`` and ``fingerprint``."""


def fingerprint(path: str) -> str:
    """
    A digest of a file's size and of its first and last 64 KiB, which of a compressed file hold a checksum of the whole;
    of others also of :data:`PLACES` parts between, since scans may be empty at both ends. Where the voxels lie beside
    the header, that of their file. Of a DICOM series that of its first file, with the number of files. It says nothing
    about the patient, stays the same when a file is moved or renamed, and is read in no time.

    Args:
        path: a volume file or a DICOM series, see :func:`~scripts.data.series_paths`.

    Returns:
        16 hexadecimal digits.
    """
    if Path(path).is_file():
        files = data_files(path) or [path]
    else:
        files = sorted({part.path for part in find_series(path).slices})
    size = Path(files[0]).stat().st_size
    with Path(files[0]).open("rb") as file:
        ends = file.read(PART)
        file.seek(max(0, size - PART))
        ends += file.read()
        if not ends.startswith(b"\x1f\x8b") and size > 2 * PART:
            for place in range(1, PLACES + 1):
                file.seek(size * place // (PLACES + 1))
                ends += file.read(PART // PLACES)
    return hashlib.sha256(f"{len(files)} {size} ".encode() + ends).hexdigest()[:16]


def trained_on(model: str | None) -> list[str]:
    """
    Args:
        model: weights, in the folder of the training run, or ``models/model.pt`` of a bundle.

    Returns:
        fingerprints of the scans they were trained on, from ``settings.json`` beside them or :data:`RELEASED` of the
        bundle; none where neither says any.
    """
    if not model:
        return []
    folder = Path(os.path.abspath(model)).parent
    settings, released = folder / "settings.json", folder.parent / RELEASED
    path = settings if settings.is_file() else released
    if not path.is_file():
        return []
    try:
        if path == released:
            return [row["fingerprint"] for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines())]
        listed = json.loads(path.read_bytes()).get("trained_on", [])
        if not isinstance(listed, list):
            raise TypeError("trained_on is no list")
        return [str(digits) for digits in listed]
    except (ValueError, AttributeError, TypeError, KeyError) as error:
        raise InputError(f"{path} is not what a training run wrote ({error!r}): bring back what it wrote") from error


def fingerprints(scans: Sequence[Mapping[str, Any]], pretrained: str | None = None) -> list[str]:
    """
    What a run's model will have been trained on.

    Args:
        scans: of the training, dictionaries with ``image``.
        pretrained: weights that the training starts from, whose own scans count too.

    Returns:
        sorted fingerprints.
    """
    return sorted({*trained_on(pretrained), *(fingerprint(scan["image"]) for scan in scans)})


def seen_scans(scans: Sequence[dict[str, Any]], model: str | None) -> list[dict[str, Any]]:
    """
    Args:
        scans: dictionaries with ``image`` and ``subject``.
        model: weights, in the folder of the training run; None for an untrained network.

    Returns:
        all scans of the subjects that the weights were trained on. Where nobody wrote which they are, none, and that is
        said on the screen.
    """
    known = set(trained_on(model))
    if model and not known:
        print(f"no settings.json beside {model} says which scans it was trained on: all are measured", flush=True)
    found = [scan for scan in scans if known and fingerprint(scan["image"]) in known]
    subjects = {(scan.get("cohort"), scan["subject"]) for scan in found}
    return [scan for scan in scans if (scan.get("cohort"), scan["subject"]) in subjects]


def unseen_scans(
    scans: Sequence[dict[str, Any]], seen: Sequence[dict[str, Any]], held_back: bool = True
) -> list[dict[str, Any]]:
    """
    The scans that a model is to be measured on: all, but for those that it was trained on.

    Args:
        scans: dictionaries with ``image`` and ``subject``.
        seen: those of them that the model was trained on.
        held_back: leave these out; otherwise they stay. Either is said on the screen.

    Returns:
        the scans, in the same order.

    Raises:
        InputError: where scans of fewer than two subjects are left.
    """
    if not seen:
        return list(scans)
    count = f"the model was trained on {len(seen)} of the {len(scans)} scans"
    if not held_back:
        print(f"{count}: they are measured with the others (held_back False)", flush=True)
        return list(scans)
    left = [scan for scan in scans if scan not in seen]
    if len({(scan.get("cohort"), scan["subject"]) for scan in left}) < 2:
        raise InputError(
            f"{count}, too few are left to measure it on: pass another --dataset_dir, or --held_back False to measure "
            "on what it was trained on"
        )
    print(f"{count}, which are left out: {', '.join(str(scan['image']) for scan in seen)}", flush=True)
    return left
