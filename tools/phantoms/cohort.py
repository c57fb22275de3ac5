# SPDX-License-Identifier: Apache-2.0

"""A cohort of phantoms on disk, in the Medical Segmentation Decathlon layout."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .heart import LABELS
from .subject import make_subject

VERSION = 1
"""Counts up whenever the same parameters give other images."""


class CohortError(Exception):
    """The output folder cannot take this cohort."""


def subject_paths(index: int) -> tuple[str, str]:
    """Where subject ``index`` keeps its image and its labels, relative to the cohort."""
    return f"./imagesTr/phantom_{index:03d}.nii.gz", f"./labelsTr/phantom_{index:03d}.nii.gz"


def parameters(seed: int, spacing: float) -> dict[str, Any]:
    """What a cohort's subjects depend on, as recorded in ``dataset.json``."""
    return {"name": "make_phantoms", "version": VERSION, "seed": seed, "spacing": float(spacing)}


def description(seed: int, spacing: float, indices: Sequence[int]) -> dict[str, Any]:
    """The content of ``dataset.json`` for a cohort that holds the subjects ``indices``."""
    training = [dict(zip(("image", "label"), subject_paths(index), strict=True)) for index in indices]
    return {
        "name": "Chest CT phantoms",
        "description": "Synthetic chest CT with the seven MM-WHS heart structures; made by a program, of no patient",
        "reference": "tools/make_phantoms.py of the GVSL bundle",
        "licence": "CC0 1.0, generated",
        "release": f"{VERSION}.0",
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "labels": {"0": "background"} | {str(code): LABELS[code] for code in sorted(LABELS)},
        "numTraining": len(training),
        "numTest": 0,
        "training": training,
        "test": [],
        "generator": parameters(seed, spacing),
    }


def write_whole(path: Path, content: bytes) -> None:
    """Write a file all at once: under its name there is never a part of it."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _write_description(out: Path, seed: int, spacing: float, indices: Sequence[int]) -> None:
    """Write ``dataset.json``."""
    write_whole(out / "dataset.json", (json.dumps(description(seed, spacing, indices), indent=2) + "\n").encode())


def write_subject(out: Path, seed: int, index: int, spacing: float) -> None:
    """Make subject ``index`` and write its two files.

    Args:
        out: the cohort's folder.
        seed: the cohort's seed.
        index: the subject's number.
        spacing: nominal voxel size, mm.
    """
    for path, image in zip(subject_paths(index), make_subject(seed, index, spacing), strict=True):
        write_whole(out / path, gzip.compress(image.to_bytes(), compresslevel=6, mtime=0))  # no time: same bytes


def _listed(out: Path, seed: int, spacing: float) -> set[str]:
    """The images of the cohort already in ``out``.

    Raises:
        CohortError: if ``out`` holds something else.
    """
    path = out / "dataset.json"
    if not path.exists():
        return set()
    try:
        content = json.loads(path.read_bytes())
        found, images = content["generator"], {row["image"] for row in content["training"]}
    except (ValueError, KeyError, TypeError) as error:
        raise CohortError(f"{path} is not of this generator; choose another folder") from error
    if found != parameters(seed, spacing):
        raise CohortError(f"{path} is of other parameters, {json.dumps(found)}; choose another folder")
    return images


def _make_all(out: Path, seed: int, indices: Sequence[int], spacing: float, workers: int) -> Iterable[None]:
    """Write subjects, in this process or in ``workers`` others, yielding after each."""
    if workers == 1:
        for index in indices:
            write_subject(out, seed, index, spacing)
            yield
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(write_subject, out, seed, index, spacing) for index in indices]
        try:
            for job in as_completed(jobs):
                job.result()
                yield
        finally:
            pool.shutdown(cancel_futures=True)


def write_cohort(out: Path, subjects: int, seed: int, spacing: float, workers: int = 1) -> None:
    """Write a cohort; subjects it already lists are kept, as they would come out the same.

    Args:
        out: its folder, made if missing.
        subjects: how many subjects it lists in the end.
        seed: with a subject's index and the spacing, all that the subject depends on.
        spacing: nominal voxel size, mm.
        workers: processes to use.

    Raises:
        CohortError: if ``out`` holds something else.
        OSError: if ``out`` cannot be written.
    """
    if out.exists() and not out.is_dir():
        raise CohortError(f"{out} is a file, not a folder")
    listed = _listed(out, seed, spacing)
    for folder in ("imagesTr", "labelsTr"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    kept: list[int] = []
    missing: list[int] = []
    for index in range(subjects):
        image, label = subject_paths(index)
        done = image in listed and (out / image).is_file() and (out / label).is_file()
        (kept if done else missing).append(index)

    _write_description(out, seed, spacing, kept)  # so that an interrupted cohort is a true, if smaller, one
    for _ in tqdm(_make_all(out, seed, missing, spacing, workers), total=len(missing), unit="subject", disable=None):
        pass
    _write_description(out, seed, spacing, range(subjects))
