# SPDX-License-Identifier: Apache-2.0
"""The folder of a run: made before anything expensive starts, never overwritten, with the settings of its model."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import write_atomically
from .checkpoints import CHECKPOINT


def prepare_output(output_dir: str, resume: bool = False, ckpt_dir: str | None = None) -> None:
    """
    Make the output folders, before anything expensive starts.

    Args:
        output_dir: folder of the run.
        resume: whether a run found there is to go on.
        ckpt_dir: folder of the checkpoints, where it is another one.

    Raises:
        InputError: when a folder cannot be written, or holds a run that would be overwritten.
    """
    for name, folder in {"output_dir": Path(output_dir), "ckpt_dir": Path(ckpt_dir or output_dir)}.items():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / ".write_test"
            probe.touch()
            probe.unlink(missing_ok=True)  # another rank may have been faster
        except OSError as error:
            raise InputError(f"{name} {folder} cannot be written ({error.strerror}): pass another --{name}") from error
        if (folder / CHECKPOINT).exists() and not resume:
            raise InputError(f"{name} {folder} already holds a run: pass --resume True to go on, or another --{name}")


def goes_on(ckpt_dir: str, resume: bool) -> bool:
    """Whether a run is taken up: ``--resume True`` where there is none begins one."""
    return resume and (Path(ckpt_dir) / CHECKPOINT).exists()


def by_id(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by the id that the configuration has for each."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= by_id(value, f"{prefix}{name}#") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def write_settings(output_dir: str, settings: Mapping[str, Any], trained_on: Sequence[str] = ()) -> None:
    """
    Write ``settings.json``: what the other configurations need to know to use this run's model, as an overlay for them.

    Args:
        output_dir: folder of the run.
        settings: plain values by config id.
        trained_on: fingerprints of the scans, see :func:`~scripts.data.fingerprints`; those that a run which goes on
            was trained on before are kept.

    Raises:
        InputError: when the folder holds a run that was made with other settings, which cannot go on with these.
    """
    path = Path(output_dir) / "settings.json"
    written = {name: value for name, value in settings.items() if value is not None}
    before: dict[str, Any] = {}
    if path.is_file() and (path.parent / CHECKPOINT).is_file():
        with suppress(ValueError):  # damaged: written anew
            before = json.loads(path.read_text(encoding="utf-8"))
    known = by_id(before)
    for name, value in by_id(json.loads(json.dumps(written))).items():
        if known.get(name, value) != value:
            raise InputError(
                f"{path.parent} holds a run made with {name} {known[name]}, not {value}: pass --{name} as it was, or "
                "another --output_dir"
            )
    seen = sorted({*before.get("trained_on", []), *trained_on})
    text = json.dumps({**written, **({"trained_on": seen} if seen else {})}, indent=4) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()), part=f".{os.getpid()}")  # every rank writes it
