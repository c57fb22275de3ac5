# SPDX-License-Identifier: Apache-2.0
"""The fingerprint of a cohort: voxel sizes, extents and intensities of its scans, and how well a grid fits them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from ..errors import check_orientation
from ..progress import progress
from ..transforms.padding import find_padding
from .cohorts import by_cohort
from .reading import read_scan, scan_geometry

SAMPLED = 50
"""Scans whose intensities are read; voxel sizes and extents are those of all."""
QUANTILES = (0.0, 0.5, 50.0, 99.5, 100.0)
"""Percentiles of the intensities of each scan."""

Result = TypeVar("Result")


class Fingerprint:
    """
    What a cohort's scans are like, read when it is asked for.

    Args:
        scans: dictionaries with ``image`` (path), possibly ``zoom`` and ``cohort``, see
            :func:`~scripts.data.find_cohorts`.
        orientation: axis codes of the axes that all is told in.
        workers: threads that read.
    """

    def __init__(self, scans: Sequence[Mapping[str, Any]], orientation: str = "RAS", workers: int = 2) -> None:
        check_orientation(orientation)
        self.scans, self.orientation, self.workers = list(scans), orientation, workers

    @cached_property
    def geometry(self) -> tuple[np.ndarray, np.ndarray]:
        """Of all scans the shapes ``(scans, 3)``, in voxels, and the voxel sizes ``(scans, 3)``, mm times the zoom."""
        read = self._read("Reading voxel sizes", self.scans, lambda scan: _geometry(scan["image"], self.orientation))
        zooms = np.array([[scan.get("zoom", 1.0)] for scan in self.scans])
        return np.array([shape for shape, _ in read]), np.array([spacing for _, spacing in read]) * zooms

    @property
    def spacings(self) -> np.ndarray:
        """Voxel sizes ``(scans, 3)``, in mm times the zoom."""
        return self.geometry[1]

    @property
    def extents(self) -> np.ndarray:
        """Extents ``(scans, 3)``, in mm times the zoom."""
        return self.geometry[0] * self.geometry[1]

    @cached_property
    def intensities(self) -> np.ndarray:
        """:data:`QUANTILES` of the intensities of up to :data:`SAMPLED` scans, spread over the cohort."""
        sampled = self.scans[:: -(-len(self.scans) // SAMPLED)]
        return np.array(self._read("Reading intensities", sampled, lambda scan: _quantiles(scan["image"])))

    def _read(self, what: str, scans: Sequence[Any], function: Callable[[Any], Result]) -> list[Result]:
        with ThreadPoolExecutor(self.workers) as pool:
            return list(progress(pool.map(function, scans), what, len(scans)))


def _geometry(path: str, orientation: str) -> tuple[list[int], list[float]]:
    """Shape and voxel size of a scan along the axes of an orientation; its header alone is read."""
    scan = scan_geometry(path)
    turned = ornt_transform(io_orientation(scan.affine), axcodes2ornt(tuple(orientation)))
    order = np.argsort(turned[:, 0])
    sizes = voxel_sizes(scan.affine)
    return [scan.size[axis] for axis in order], [float(sizes[axis]) for axis in order]


def _quantiles(path: str) -> np.ndarray:
    """Of what was measured; padding is left out."""
    values = read_scan(path)[1]
    padding = [end["value"] for end in find_padding(values[None]) if end]
    return np.percentile(values[~np.isin(values, padding)] if padding else values, QUANTILES)


def describe_misfit(fingerprint: Fingerprint, pixdim: Sequence[float], spatial_size: Sequence[int]) -> list[str]:
    """
    What a grid does to the scans that nobody would want unawares.

    Args:
        fingerprint: of the scans.
        pixdim: voxel size that they are resampled to, mm.
        spatial_size: voxels of the crop around their centre.

    Returns:
        a line for each cohort and misfit: most of the crop is padding, most of the scan is cut off, or voxels are more
        than twice as large as the scans'.
    """
    lines = []
    for cohort, members in by_cohort(fingerprint.scans).items():
        first = fingerprint.scans[members[0]]
        zoom, zoom_out = (first.get(name, 1.0) for name in ("zoom", "zoom_out"))
        extents, spacings = fingerprint.extents[members] / zoom, fingerprint.spacings[members] / zoom
        voxel = np.array(pixdim) / zoom
        crop = voxel * np.array(spatial_size)
        filled = np.median(np.minimum(1, extents / crop).prod(axis=1))
        kept = np.median(np.minimum(1, zoom_out * crop / extents).prod(axis=1))  # voxels are drawn up to zoom_out
        coarser = np.median((voxel / spacings).prod(axis=1) ** (1 / 3))
        scans = f"{'the scans' if cohort is None else f'the scans of {cohort}'} ({_mm(np.median(extents, 0))})"
        if filled < 0.5:
            lines.append(f"{scans} fill {filled:.1%} of the crop ({_mm(crop)}), the rest is padding")
        if kept < 0.5:
            lines.append(f"{kept:.1%} of {scans} lies in the crop ({_mm(zoom_out * crop)}), the rest is cut off")
        if coarser > 2:
            voxels = f"{_mm(np.median(spacings, 0))} become {_mm(voxel)}"
            lines.append(f"voxels of {scans} are made {coarser:.1f} times coarser along each axis: {voxels}")
    return lines


def report_misfit(
    fingerprint: Fingerprint, pixdim: Sequence[float], spatial_size: Sequence[int], show: bool = True
) -> None:
    """
    Say in one line each what :func:`describe_misfit` finds.

    Args:
        fingerprint: of the scans.
        pixdim: voxel size that they are resampled to, mm.
        spatial_size: voxels of the crop around their centre.
        show: False for the processes beside the first one.
    """
    for line in describe_misfit(fingerprint, pixdim, spatial_size) if show else ():
        print(f"note: {line}; --pixdim and --spatial_size change it, configs/plan.json chooses them", flush=True)


def _mm(lengths: Any) -> str:
    return " x ".join(f"{length:.3g}" for length in lengths) + " mm"
