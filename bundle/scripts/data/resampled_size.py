# SPDX-License-Identifier: Apache-2.0
"""How large a scan becomes at another voxel size, and whether this machine has the memory for it."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from nibabel.affines import voxel_sizes

from .geometry import ScanGeometry, UnusableScan

MAX_VOXELS = 2**30
"""Voxels that a scan may have at the voxel size asked for; fewer where memory is short."""
BYTES_A_VOXEL = 60
"""Of memory at the peak of resampling to so many voxels, by MONAI's ``Spacing``."""


def most_voxels() -> int:
    """Voxels to which a scan can be resampled on this machine, :data:`MAX_VOXELS` at most."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return MAX_VOXELS
    return min(MAX_VOXELS, memory // BYTES_A_VOXEL)


def check_resampled(
    geometry: ScanGeometry, pixdim: Sequence[float], max_voxels: int | None = None, zoom: float = 1.0
) -> None:
    """
    Refuse a scan that would be enormous, or vanish, at another voxel size.

    Args:
        geometry: of the scan.
        pixdim: the voxel size, in millimetres.
        max_voxels: it may have then, see :class:`~scripts.data.LoadScand`.
        zoom: how many times larger the scan is taken for.

    Raises:
        UnusableScan: saying how large the scan says it is.
    """
    extent = voxel_sizes(geometry.affine)[: len(geometry.size)] * geometry.size
    voxels = np.maximum(1, np.round(extent * zoom / np.asarray(pixdim, dtype=float)[: len(extent)]))
    most = most_voxels() if max_voxels is None else max_voxels
    if voxels.prod() <= most and voxels.max() >= 4:
        return
    shown, large = (" x ".join(f"{value:.4g}" for value in values) for values in (voxels, extent))
    what = "enormous" if voxels.prod() > most else "next to nothing"
    needed = f" ({voxels.prod() * BYTES_A_VOXEL / 1e9:.3g} GB of memory)" if voxels.prod() > most else ""
    raise UnusableScan(
        f"would be {what}, {shown} voxels{needed}, at the voxel size {list(pixdim)} mm asked for: its header says "
        f"that it is {large} mm large; correct its voxel size or unit (pixdim, sform, xyzt_units), or pass another "
        "--pixdim"
    )
