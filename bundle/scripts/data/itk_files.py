# SPDX-License-Identifier: Apache-2.0
"""NRRD and MetaImage files, read by ITK; and what it does not look at: units, scales, voxel sizes, damaged data."""

from __future__ import annotations

import re
import zlib
from pathlib import Path
from typing import Any

import itk
import numpy as np

from .geometry import ScanGeometry, UnusableScan, check_affine, orthogonal, shear
from .nifti_geometry import itk_affine

NRRD_ENDINGS = (".nrrd", ".nhdr")
ITK_ENDINGS = (*NRRD_ENDINGS, ".mha", ".mhd")
MILLIMETRES = {"mm", "millimeter", "millimeters", "?", ""}
"""Units that are taken for millimetres; MetaImage's ``?`` is none."""
HEADER = 2**16
"""Bytes at the beginning of a file in which its header ends."""
PART = 2**22
"""Bytes taken from compressed data at once."""


def _header(path: str) -> tuple[str, int]:
    """The text of a header, with the line that names the data, and its length in bytes."""
    with Path(path).open("rb") as file:
        content = file.read(HEADER)
    end = re.search(
        rb"\r?\n\r?\n" if path.lower().endswith(NRRD_ENDINGS) else rb"^ElementDataFile[^\n]*\n?", content, re.MULTILINE
    )
    length = end.end() if end else len(content)
    return content[:length].decode("latin-1"), length


def _entry(header: str, name: str) -> str:
    """The value of a field of a header, "" where it has none."""
    found = re.search(rf"^{name}\s*[:=]=?\s*(.*?)\s*$", header, re.MULTILINE | re.IGNORECASE)
    return found[1] if found else ""


def data_files(path: str) -> list[str]:
    """The files beside a header (``.mhd``, ``.nhdr``) that hold its voxels; none where they are in the file itself."""
    if not path.lower().endswith(ITK_ENDINGS) or not Path(path).is_file():
        return []
    header, _ = _header(path)
    named = _entry(header, "data ?file" if path.lower().endswith(NRRD_ENDINGS) else "ElementDataFile")
    if not named or named.upper() == "LOCAL":
        return []
    folder = Path(path).parent
    if named.upper().startswith("LIST"):
        names = [line.strip() for line in Path(path).read_text(encoding="latin-1").splitlines()]
        return [str(folder / name) for name in names if name and (folder / name).is_file()]
    if (folder / named).is_file():
        return [str(folder / named)]
    start = named.split("%")[0]  # a pattern with the numbers of slices
    return sorted(str(found) for found in folder.glob("*") if start and found.name.startswith(start))


def itk_geometry(path: str) -> ScanGeometry:
    """
    Where the scan in a file lies, from its header.

    Raises:
        UnusableScan: for another unit than millimetres, values to be scaled, voxels of no size, axes that span no
            volume, more axes than 3.
    """
    header, _ = _header(path)
    if path.lower().endswith(NRRD_ENDINGS):
        units = re.findall(r'"([^"]*)"', f"{_entry(header, 'space units')} {_entry(header, 'units')}")
    else:
        units = [_entry(header, "DistanceUnits")]
        scale = {name: _entry(header, f"ElementToIntensityFunction{name}") for name in ("Slope", "Offset")}
        if (float(scale["Slope"] or 1), float(scale["Offset"] or 0)) != (1, 0):
            told = ", ".join(f"{name} {value}" for name, value in scale.items() if value)
            raise UnusableScan(
                f"has values to be scaled (ElementToIntensityFunction: {told}), which ITK does not do; store the "
                "scaled ones, without these fields"
            )
    other = sorted(set(units) - MILLIMETRES)
    if other:
        raise UnusableScan(f"has its space in {other[0]}, which ITK takes for millimetres; store it in millimetres")
    reader = itk.ImageFileReader[itk.Image[itk.F, 3]].New(FileName=path)
    try:
        reader.UpdateOutputInformation()
    except RuntimeError as error:
        if "domain axes" in str(error):
            sizes = " x ".join(_entry(header, "sizes").split())
            raise UnusableScan(f"has the axes {sizes}; store one scan a file, of three axes") from error
        if re.search(r"spacing|direction|determinant|orientation", str(error), re.IGNORECASE):
            raise UnusableScan(
                "has voxels of no size, or axes that span no volume, by its header; set right ones there (spacings or "
                "space directions, ElementSpacing or TransformMatrix)"
            ) from error
        raise
    return _placed(reader.GetOutput(), header)


def _placed(image: Any, header: str) -> ScanGeometry:
    affine = itk_affine(image)
    check_affine(affine)
    size = tuple(int(n) for n in itk.size(image))[:3]
    notes = {}
    sizes = (_entry(header, name) for name in ("spacings", "space directions", "ElementSpacing", "ElementSize"))
    if not any(value and "nan" not in value.lower() for value in sizes):
        notes["no voxel size"] = "says no voxel size, or not of every axis: taken for 1 mm, as ITK does"
    if not orthogonal(affine, size):
        notes["shear"] = (
            f"has axes {shear(affine):.1f} degrees off the right angle, which is respected; ITK-based tools (3D "
            "Slicer) refuse results in its place"
        )
    return ScanGeometry(affine, size, affine, notes=notes)


def read_itk(path: str) -> tuple[ScanGeometry, np.ndarray]:
    """
    Read a file.

    Returns:
        where it lies, and its values, ``(D, H, W)`` or ``(D, H, W, C)``.

    Raises:
        UnusableScan: see :func:`itk_geometry`; for damaged data.
    """
    geometry = itk_geometry(path)
    _check_compressed(path)
    reader = itk.ImageFileReader[itk.VectorImage[itk.F, 3]].New(FileName=path)
    reader.UpdateOutputInformation()
    if reader.GetImageIO().GetNumberOfComponents() == 1:
        return geometry, itk.array_from_image(itk.imread(path)).T
    reader.Update()
    return geometry, np.moveaxis(itk.array_from_image(reader.GetOutput()).T, 0, -1)


def _check_compressed(path: str) -> None:
    """Whether the data of a compressed MetaImage file are whole: ITK goes on with what its memory holds."""
    header, length = _header(path)
    if path.lower().endswith(NRRD_ENDINGS) or _entry(header, "CompressedData").lower() != "true":
        return
    for name in data_files(path) or [path]:
        unpacked = zlib.decompressobj()
        with Path(name).open("rb") as file:
            file.seek(length if name == path else 0)
            try:
                while not unpacked.eof and (part := unpacked.unconsumed_tail or file.read(PART)):
                    unpacked.decompress(part, PART)
            except zlib.error as error:
                raise UnusableScan(f"cannot be read ({error}); it is damaged: copy it anew") from error
        if not unpacked.eof:
            raise UnusableScan("cannot be read (its compressed data end too early); it is damaged: copy it anew")
