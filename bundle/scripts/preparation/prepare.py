# SPDX-License-Identifier: Apache-2.0
"""A data set as it is downloaded becomes one that is faster or easier to learn from, in the same layout and formats."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, cast

from monai.data import ITKWriter, MetaTensor
from torch.utils.data import DataLoader

from ..data.folder_layouts import laid_out_images
from ..data.geometry import other_grid
from ..data.reading import LoadScan, scan_geometry
from ..data.scan_checks import check_scan
from ..data.writing import ScanWriter
from ..errors import InputError, check_flags, check_numbers, refuse_or_leave_out
from ..progress import progress

WRITERS = {".nii": ScanWriter, ".nii.gz": ScanWriter, ".nrrd": ITKWriter, ".mha": ITKWriter}

RECORD = "prepared.json"

Step = Callable[[MetaTensor, MetaTensor | None], tuple[MetaTensor, MetaTensor | None]]


def write_image(image: MetaTensor, path: Path) -> None:
    """
    Write a scan in the format of its name, all at once: under its name there is never a part of it. MONAI's
    ``SaveImage`` gives all scans one format, and a full disk leaves half a file under the name.

    Args:
        image: ``(1, D, H, W)``.
        path: destination, whose folder is made.

    Raises:
        InputError: where it cannot be written.
    """
    ending = next((ending for ending in WRITERS if path.name.lower().endswith(ending)), None)
    if ending is None:
        raise InputError(f"{path} cannot be written: the formats are {', '.join(WRITERS)}")
    part = path.with_name(f".{path.name[: -len(ending)]}.part{ending}")
    writer = WRITERS[ending](output_dtype=None)
    writer.set_data_array(image.as_tensor(), channel_dim=0)
    writer.set_metadata({"affine": image.affine, "filename_or_obj": image.meta.get("filename_or_obj")}, resample=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writer.write(part, **({"compression": True} if ending in (".nrrd", ".mha") else {}))
        os.replace(part, path)
    except (OSError, RuntimeError) as error:  # ITK's are RuntimeErrors
        reason = str(error).strip().splitlines()[-1]
        raise InputError(f"{path} cannot be written ({reason}): make room, or pass another --dataset_dir") from error
    finally:
        part.unlink(missing_ok=True)


def prepare_case(case: Mapping[str, str], targets: Mapping[str, str], step: Step) -> str | None:
    """
    Prepare one scan and its label.

    Args:
        case: paths ``image`` and, unless there is none by design, ``label``.
        targets: where they go.
        step: what is done to them.

    Returns:
        what makes the case unusable, None for one that was written.
    """
    problem = check_scan(case["image"])
    if problem:
        return problem
    load = LoadScan(dtype=None)
    image, label = load(case["image"]), None
    if "label" in case:
        if not os.path.isfile(case["label"]):
            return f"has no label file: {case['label']} is missing"
        try:
            label = load(case["label"])
        except Exception as error:  # damaged files raise anything
            return f"has a label that cannot be read ({type(error).__name__}): {case['label']}"
        wrong = other_grid(scan_geometry(case["label"]), scan_geometry(case["image"]))
        if wrong:
            return f"and its label {case['label']} do not lie on one grid {wrong}"
        label.affine = image.affine
    try:
        image, label = step(image, label)
    except InputError as error:
        return str(error)
    for key, volume in {"label": label, "image": image}.items():
        if volume is not None:
            write_image(volume, Path(targets[key]))
    return None


def _prepared(step: Step, job: tuple[dict[str, str], dict[str, str]]) -> tuple[str, str | None]:
    """Path and problem of an image."""
    case, targets = job
    return case["image"], prepare_case(case, targets, step)


class Preparation:
    """
    Prepares every image of a data set: the same tree, file names and formats, so that one layout reads both. Files that
    are there already are not made again, so that an interrupted preparation goes on.

    Args:
        source_dir: folder of the data set, as downloaded.
        dataset_dir: folder of the prepared one, made if missing.
        layout: of both, see :mod:`scripts.data.folder_layouts`.
        step: what is done to each image and its label (``None`` for an image without): a data class, which takes and
            returns both as ``(1, D, H, W)`` and raises an ``InputError`` for what cannot be used.
        copied: patterns of other files, relative to ``source_dir``, to copy as they are.
        skip_bad: leave unusable scans out instead of refusing.
        workers: processes.
    """

    def __init__(
        self,
        source_dir: str,
        dataset_dir: str,
        layout: Mapping[str, Any],
        step: Step,
        copied: Sequence[str] = (),
        skip_bad: bool = False,
        workers: int = 1,
    ) -> None:
        check_flags({"skip_bad": skip_bad})
        check_numbers({"workers": workers}, lowest=1, whole=True)
        self.source, self.target = Path(source_dir), Path(dataset_dir)
        self.layout, self.step, self.copied = layout, step, copied
        self.skip_bad, self.workers = skip_bad, workers
        if not self.source.is_dir():
            raise InputError(f"source_dir {source_dir} does not exist: pass --source_dir <the data set as downloaded>")
        source, target = self.source.resolve(), self.target.resolve()
        if source == target or source in target.parents or target in source.parents:
            raise InputError(f"dataset_dir {dataset_dir} and source_dir {source_dir} must not lie in each other")

    def _open(self) -> None:
        """Make the folder, refuse one that was prepared in another way, and copy the other files."""
        record = self.target / RECORD
        step = {"step": type(self.step).__name__, **asdict(self.step)}  # type: ignore[call-overload]
        wanted = json.loads(json.dumps({"source_dir": str(self.source.resolve()), **step}))
        try:
            self.target.mkdir(parents=True, exist_ok=True)
            before = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
            if {**wanted, **before} != wanted:
                raise InputError(f"{self.target} was prepared with {before}, not {wanted}: pass another --dataset_dir")
            if not before:
                record.write_text(json.dumps(wanted), encoding="utf-8")
            for path in sorted(path for pattern in self.copied for path in self.source.glob(pattern)):
                copy = self.target / path.relative_to(self.source)
                if not copy.is_file():
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    part = shutil.copyfile(path, copy.with_name(f".{copy.name}.part"))
                    os.replace(part, copy)
        except InputError:
            raise
        except (OSError, ValueError) as error:
            raise InputError(f"dataset_dir {self.target} cannot be used ({error}): pass another one") from error

    def run(self) -> None:
        """
        Prepare what is not there yet.

        Raises:
            InputError: listing every unusable scan, after all others were prepared; for folders that cannot be used.
        """
        cases = laid_out_images(self.source, self.layout)
        self._open()
        jobs = []
        for case in cases:
            targets = {key: str(self.target / Path(path).relative_to(self.source)) for key, path in case.items()}
            if not all(os.path.isfile(path) for path in targets.values()):
                jobs.append((case, targets))
        print(f"{len(cases)} scans, {len(cases) - len(jobs)} of them prepared before", flush=True)
        parallel: dict[str, Any] = {"num_workers": self.workers, "multiprocessing_context": "spawn"}
        results: DataLoader[tuple[str, str | None]] = DataLoader(
            cast(Any, jobs),
            batch_size=None,
            collate_fn=partial(_prepared, self.step),
            **(parallel if self.workers > 1 else {}),
        )
        shown = progress(results, "Preparing scans", len(jobs), fewest=1)
        problems = {image: problem for image, problem in shown if problem}
        refuse_or_leave_out([f"{k} {v}" for k, v in sorted(problems.items())], len(cases), "scans", self.skip_bad)
        unlabelled = sum("label" not in case for case in cases) if "label" in self.layout else 0
        note = f"; {unlabelled} have no label" if unlabelled else ""
        print(f"{len(cases) - len(problems)} prepared scans in {self.target}{note}", flush=True)
