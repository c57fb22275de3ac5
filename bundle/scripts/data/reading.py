# SPDX-License-Identifier: Apache-2.0
"""How scans are read, and whether they can be."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import nibabel as nib
import numpy as np
from monai.data import ITKReader
from monai.data.nvimgcodec_pydicom_plugin import is_nvimgcodec_available
from monai.transforms import SUPPORTED_READERS, LoadImage


def set_up_readers() -> None:
    """
    Accept what public files have, and warn of nothing that nobody asked for.

    Some files (CANDI's) store rotations rounded a little beyond unit length, which nibabel refuses by default. MONAI
    makes every reader it knows for every ``LoadImage``, and the one for NVIDIA GPUs warns twice each time where its
    library is not there: it is left out then, unless ``MONAI_DICOM_READER`` names a reader.
    """
    nib.Nifti1Header.quaternion_threshold = 10 * np.finfo(np.float32).eps
    if not is_nvimgcodec_available() and "MONAI_DICOM_READER" not in os.environ:
        SUPPORTED_READERS.pop("nvimgcodecpydicomreader", None)


class _SeriesReader(ITKReader):
    """Tells how uneven slices lie, in slices: ITK drops unreadable ones and stretches the rest over the gap."""

    def get_data(self, img: Any) -> tuple[np.ndarray, dict]:
        array, meta = super().get_data(img)
        deviation = dict(img).get("ITK_non_uniform_sampling_deviation", 0)
        return array, {**meta, "gap": deviation / list(img.GetSpacing())[-1]}


@cache
def _loader(series: bool) -> LoadImage:
    return LoadImage(reader=_SeriesReader if series else None, image_only=True, ensure_channel_first=True)


def check_scan(path: str, spatial_dims: int = 3, min_size: int = 4, constant: bool = False) -> str | None:
    """
    What makes a scan unusable.

    Args:
        path: a volume file or the folder of a DICOM series.
        spatial_dims: 2 or 3.
        min_size: voxels that each axis must have.
        constant: accept an image that is the same everywhere (an empty label map).

    Returns:
        the problem and its remedy; None for a usable scan.
    """
    if not os.path.exists(path):
        return "does not exist; correct dataset.json"
    try:
        scan = _loader(os.path.isdir(path))(path)
        image, affine = np.asarray(scan), np.asarray(scan.affine)
    except Exception as error:  # a damaged file may raise anything, from any reader
        reason = str(error).strip().splitlines()[-1][:120] if str(error).strip() else type(error).__name__
        return f"cannot be read ({reason}); it is damaged or of another format: copy it anew or remove it"
    if scan.meta.get("gap", 0) > 0.5:
        return "lacks slices: some are missing or damaged; copy the series anew or remove it"
    channels, size = image.shape[0], image.shape[1:]
    if channels != 1:
        return f"holds {channels} volumes or colours; store one scan a file"
    if len(size) != spatial_dims or min(size) < min_size:
        shown = " x ".join(str(n) for n in size)
        return f"is {shown} voxels; {spatial_dims} axes of {min_size} voxels or more are needed"
    if not np.isfinite(image).all():
        return f"has {np.count_nonzero(~np.isfinite(image))} voxels that are NaN or infinite; replace them"
    if not np.isfinite(affine).all() or np.linalg.det(affine) == 0:
        return "has no valid orientation and spacing (its affine matrix is singular); correct the header"
    if not constant and image.min() == image.max():
        return f"is constant (every voxel is {image.flat[0]:g}); remove it"
    return None


def file_stamp(path: str) -> list[int]:
    """Size and time of the last change of a file, or of all files of a folder."""
    states = [entry.stat() for entry in os.scandir(path)] if os.path.isdir(path) else [os.stat(path)]
    return [sum(state.st_size for state in states), max((state.st_mtime_ns for state in states), default=0)]
