# SPDX-License-Identifier: Apache-2.0
"""Which DICOM series a folder holds, or a patient's CD: by their headers alone."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError

from .geometry import UnusableScan
from .stamps import file_stamp

TOLD_APART_BY = (
    *("AcquisitionNumber", "TemporalPositionIdentifier", "EchoNumbers", "EchoTime", "TriggerTime", "ContentTime"),
    *("DiffusionBValue", "ImageType", "AcquisitionTime", "InstanceNumber"),
)
"""What may tell images of one position apart, the most telling first."""

ANNOUNCED = ("ImagesInAcquisition", "NumberOfSeriesRelatedInstances")
"""How many images there should be, by what the images themselves say."""

TAGS = (
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesDescription", "SeriesNumber", "Modality"),
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PixelSpacing", "ImagePositionPatient"),
    "PhotometricInterpretation",
    *(
        "ImageOrientationPatient",
        "RescaleSlope",
        "RescaleIntercept",
        "SpacingBetweenSlices",
        *TOLD_APART_BY,
        *ANNOUNCED,
    ),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
)

DAMAGED = (
    *(InvalidDicomError, OSError, EOFError, ValueError, TypeError, AttributeError, KeyError, NotImplementedError),
)
"""What reading a header that is cut short or none raises."""

NO_SCANS = ("SEG", "RTSTRUCT", "RTPLAN", "RTDOSE", "SR", "PR", "KO", "DOC", "REG")
"""Modalities of objects that go with images."""


@dataclass
class Slice:
    """One image of a series: a file, or a frame of one; what its header lacks is NaN."""

    path: str
    frame: int
    position: np.ndarray
    orientation: np.ndarray
    pixel: np.ndarray
    size: tuple[int, int]
    scale: tuple[float, float]
    told: dict[str, str] = field(default_factory=dict)


@dataclass
class Series:
    """Images of one SeriesInstanceUID in a folder, or in a file."""

    uid: str
    description: str
    number: str
    colours: int
    unreadable: list[str]
    slices: list[Slice] = field(default_factory=list)
    modality: str = ""
    inverted: bool = False
    announced: dict[str, int] = field(default_factory=dict)


def _first(dataset: Any, *names: str) -> Any:
    """A value below nested sequences of one item, None where there is none."""
    for name in names:
        value = getattr(dataset, name, None)
        if value is None or (name.endswith("Sequence") and not len(value)):
            return None
        dataset = value[0] if name.endswith("Sequence") else value
    return dataset


def _numbers(value: Any, count: int) -> np.ndarray:
    try:
        found = np.array([float(v) for v in value])
    except (TypeError, ValueError):
        found = np.array([])
    return found if len(found) == count else np.full(count, np.nan)


def _slice(path: str, frame: int, plain: Any, groups: Sequence[Any]) -> Slice:
    """Where an image lies: by the groups of its frame or of all frames, else by the plain attributes."""

    def find(*names: str) -> Any:
        found = [_first(group, *names) for group in groups if group is not None]
        return next((value for value in found if value is not None), getattr(plain, names[-1], None))

    slope, intercept = (find("PixelValueTransformationSequence", name) for name in ("RescaleSlope", "RescaleIntercept"))
    content = [_first(group, "FrameContentSequence") for group in groups]
    told = {
        name: str(value)
        for name in TOLD_APART_BY
        for source in (*content, *(_first(group, "MREchoSequence") for group in groups), plain)
        if source is not None and (value := getattr(source, name, None)) is not None
    }
    return Slice(
        path,
        frame,
        _numbers(find("PlanePositionSequence", "ImagePositionPatient"), 3),
        _numbers(find("PlaneOrientationSequence", "ImageOrientationPatient"), 6),
        _numbers(find("PixelMeasuresSequence", "PixelSpacing"), 2),
        (int(plain.Columns), int(plain.Rows)),
        (1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept)),
        told | {"SOPInstanceUID": str(getattr(plain, "SOPInstanceUID", path)) + f" {frame}"},
    )


def _slices(path: str, dataset: Any) -> list[Slice]:
    shared = _first(dataset, "SharedFunctionalGroupsSequence")
    frames = getattr(dataset, "PerFrameFunctionalGroupsSequence", None) or []
    count = int(getattr(dataset, "NumberOfFrames", None) or 1)
    return [_slice(path, n, dataset, [frames[n] if n < len(frames) else None, shared]) for n in range(count)]


def is_dicom(path: str | Path) -> bool:
    """Whether a file is of DICOM, by its first bytes or its name."""
    if Path(path).suffix.lower() in (".dcm", ".ima"):
        return True
    with Path(path).open("rb") as file:
        return file.read(132)[128:] == b"DICM"


@lru_cache(maxsize=64)
def _read_folder(folder: str, stamp: tuple[int, ...]) -> dict[str, Series]:
    """Series of a folder by UID. ``stamp`` tells its states apart."""
    found: dict[str, Series] = {}
    unreadable = []
    files = (
        [folder] if os.path.isfile(folder) else sorted(entry.path for entry in os.scandir(folder) if entry.is_file())
    )
    for path in files:
        if os.path.basename(path).startswith("."):
            continue
        try:
            if not is_dicom(path):
                continue
            dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(TAGS), force=True)
            if not hasattr(dataset, "SOPClassUID") and not hasattr(dataset, "SeriesInstanceUID"):
                meta = str(getattr(dataset.file_meta, "MediaStorageSOPClassUID", ""))
                if meta != pydicom.uid.MediaStorageDirectoryStorage:
                    unreadable.append(path)
                continue
            if not hasattr(dataset, "Rows") or getattr(dataset, "Modality", "") in NO_SCANS:
                continue  # no image: a directory, structures, a report
            slices = _slices(path, dataset)
        except DAMAGED:
            unreadable.append(path)
            continue
        uid = str(getattr(dataset, "SeriesInstanceUID", ""))
        shown = str(getattr(dataset, "PhotometricInterpretation", "")).upper()
        found.setdefault(
            uid,
            Series(
                uid,
                str(getattr(dataset, "SeriesDescription", "") or "").strip(),
                str(getattr(dataset, "SeriesNumber", "") or ""),
                # a palette has colours by number, of which ITK makes three values, or ends the process
                3 if shown.startswith("PALETTE") else int(getattr(dataset, "SamplesPerPixel", 1) or 1),
                unreadable,
                modality=str(getattr(dataset, "Modality", "") or ""),
                inverted=shown == "MONOCHROME1",
                announced={name: int(value) for name in ANNOUNCED if (value := getattr(dataset, name, None))},
            ),
        ).slices.extend(slices)
    return found


def _names(found: dict[str, Series]) -> dict[str, Series]:
    """Series by names that tell them apart: the description, with the number, with the end of the UID."""
    series = list(found.values())

    def plain(text: str) -> str:
        return re.sub(r"[^\w.+-]+", "_", text).strip("_.") or "series"

    candidates = [
        [plain(each.description) for each in series],
        [plain(f"{each.description} {each.number}") for each in series],
        [plain(f"{each.description} {each.number} {each.uid[-8:]}") for each in series],
        [plain(each.uid) for each in series],
    ]
    names = next(names for names in candidates if len(set(names)) == len(series))
    return dict(zip(names, series, strict=True))


def series_paths(folder: str | Path) -> list[str]:
    """
    The scans in a folder of DICOM files: the folder itself where it holds one series; else ``folder/NAME`` for each,
    where ``NAME`` is the series' description, with its number where that is needed to tell them apart.
    """
    named = _names(_read_folder(str(folder), _stamp(folder)))
    return [str(folder)] if len(named) == 1 else [str(Path(folder, name)) for name in sorted(named)]


def find_series(path: str | Path) -> Series:
    """
    The series that a path of :func:`series_paths`, or a DICOM file, names.

    Raises:
        UnusableScan: where it names none, or one of several.
    """
    path = Path(path)
    if path.exists():
        named = _names(_read_folder(str(path), _stamp(path)))
        if not named:
            raise UnusableScan("cannot be read (it holds no DICOM image)")
        if len(named) > 1:
            listed = ", ".join(f"{name} ({len(each.slices)} images)" for name, each in sorted(named.items()))
            raise UnusableScan(f"holds {len(named)} series: {listed}; name one, as {path / sorted(named)[0]}")
        return next(iter(named.values()))
    named = _names(_read_folder(str(path.parent), _stamp(path.parent))) if path.parent.is_dir() else {}
    if path.name not in named:
        raise UnusableScan("does not exist")
    return named[path.name]


def is_series(path: str | Path) -> bool:
    """Whether a path names one of the series in a folder, see :func:`series_paths`."""
    folder = Path(path).parent
    return folder.is_dir() and Path(path).name in _names(_read_folder(str(folder), _stamp(folder)))


def _stamp(path: str | Path) -> tuple[int, ...]:
    return tuple(file_stamp(str(path)))
