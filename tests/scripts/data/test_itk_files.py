# SPDX-License-Identifier: Apache-2.0

"""NRRD and MetaImage files: what ITK takes in silence is told or refused, and what is advised helps."""

from __future__ import annotations

import gzip
import re
import shutil
from pathlib import Path

import itk
import nibabel as nib
import numpy as np
import pytest
from geometries import same
from scripts.data import LoadScand, check_scan, fingerprint, inspect_scan, read_scan, scan_geometry
from scripts.data.itk_files import data_files
from scripts.errors import InputError

SIZE = (8, 9, 7)
VOLUME = np.random.default_rng(0).integers(1, 900, SIZE).astype("<i2")
PLACE = "space: left-posterior-superior\nspace directions: (2,0,0) (0,2,0) (0,0,3)\nspace origin: (5,6,7)\n"
META = "ElementSpacing = 2 2 3\nOffset = 5 6 7\n"
TWO, AXES = np.stack([VOLUME] * 2, -1), "TransformMatrix"
SCALE = "ElementToIntensityFunction"
AFFINE = np.array([[-2.0, 0, 0, -5], [0, -2, 0, -6], [0, 0, 3, 7], [0, 0, 0, 1]])


def nrrd(path: Path, fields: str, values: np.ndarray = VOLUME, sizes: str = "8 9 7") -> None:
    head = f"NRRD0004\ntype: short\ndimension: {len(sizes.split())}\nsizes: {sizes}\nendian: little\nencoding: raw\n"
    path.write_bytes((head + fields + "\n").encode() + values.tobytes(order="F"))


def meta(path: Path, fields: str, values: np.ndarray = VOLUME, channels: int = 1) -> None:
    head = f"ObjectType = Image\nNDims = 3\nBinaryData = True\nElementNumberOfChannels = {channels}\n{fields}"
    rest = "DimSize = 8 9 7\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    path.write_bytes((head + rest).encode() + values.tobytes(order="F"))


def compressed(path: Path) -> None:
    itk.imwrite(itk.image_from_array(np.ascontiguousarray(VOLUME.T)), str(path), compression=True)


def spoil(path: Path) -> None:
    """Change one byte of the data."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2 + 100] ^= 255
    path.write_bytes(content)


UNITS = PLACE + 'space units: "{0}" "{0}" "{0}"\n'
REFUSED = {
    "space in cm": ("a.nrrd", lambda p: nrrd(p, UNITS.format("cm")), "in cm.*store it in millimetres",
                    lambda p: nrrd(p, UNITS.format("mm"))),
    "axes in um": ("a.nrrd", lambda p: nrrd(p, 'spacings: 2000 2000 3000\nunits: "um" "um" "um"\n'),
                   "in um.*store it in millimetres", lambda p: nrrd(p, 'spacings: 2 2 3\nunits: "mm" "mm" "mm"\n')),
    "no size": ("a.nrrd", lambda p: nrrd(p, "spacings: 2 2 0\n"), "no size.*set right ones there .spacings",
                lambda p: nrrd(p, PLACE)),
    "no volume": ("a.nrrd", lambda p: nrrd(p, PLACE.replace("(0,2,0)", "(2,0,0)")), "span no volume.*space directions",
                  lambda p: nrrd(p, PLACE)),
    "four axes": ("a.nrrd", lambda p: nrrd(p, PLACE.replace("3)\n", "3) none\n"), TWO, "8 9 7 2"),
                  "has the axes 8 x 9 x 7 x 2; store one scan a file, of three axes", lambda p: nrrd(p, PLACE)),
    "meta: space in cm": ("a.mha", lambda p: meta(p, META + "DistanceUnits = cm\n"), "in cm.*store it in millimetres",
                          lambda p: meta(p, META + "DistanceUnits = mm\n")),
    "meta: scaled": ("a.mha", lambda p: meta(p, META + f"{SCALE}Slope = 2\n{SCALE}Offset = -1024\n"),
                     "Function: Slope 2, Offset -1024.*store the scaled ones, without", lambda p: meta(p, META)),
    "meta: moved": ("a.mha", lambda p: meta(p, META + f"{SCALE}Offset = 5\n"), "Function: Offset 5.*store the scaled",
                    lambda p: meta(p, META + f"DistanceUnits = ?\n{SCALE}Slope = 1.0\n{SCALE}Offset = 0\n")),
    "meta: no size": ("a.mha", lambda p: meta(p, "ElementSpacing = 2 0 3\n"), "set right ones there .*ElementSpacing",
                      lambda p: meta(p, META)),
    "meta: no volume": ("a.mha", lambda p: meta(p, META + f"{AXES} = 1 0 0 1 0 0 0 0 1\n"), "or TransformMatrix",
                        lambda p: meta(p, META + f"{AXES} = 1 0 0 0 1 0 0 0 1\n")),
    "five channels": ("a.mha", lambda p: meta(p, META, np.stack([VOLUME] * 5), 5), "holds 5 volumes.*one scan a file",
                      lambda p: meta(p, META)),
    "damaged": ("a.mha", lambda p: (compressed(p), spoil(p)), "damaged: copy it anew", compressed),
    "cut": ("a.mha", lambda p: (compressed(p), p.write_bytes(p.read_bytes()[:-30])), "copy it anew", compressed),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_is_read_after_what_is_advised(tmp_path, case):
    """Before, ITK made units of millimetres and damaged data of what its memory held, or nothing helpful was said."""
    name, bad, message, mended = REFUSED[case]
    path = tmp_path / name
    bad(path)
    assert re.search(message, str(check_scan(str(path))))
    mended(path)
    assert check_scan(str(path)) is None
    assert np.array_equal(read_scan(str(path))[1], VOLUME)


def test_damage_ends_in_a_line_where_it_is_read_without_a_check(tmp_path):
    compressed(tmp_path / "a.mha")
    spoil(tmp_path / "a.mha")
    with pytest.raises(InputError, match=r"a\.mha cannot be read .*copy it anew"):
        LoadScand("image")({"image": str(tmp_path / "a.mha")})


def test_places_and_channels(tmp_path):
    nrrd(tmp_path / "a.nrrd", PLACE)
    meta(tmp_path / "a.mha", META)
    assert all(same(scan_geometry(str(tmp_path / name)).affine, AFFINE) for name in ("a.nrrd", "a.mha"))
    meta(tmp_path / "b.mha", META, np.stack([VOLUME, VOLUME + 1]), 2)
    assert np.array_equal(read_scan(str(tmp_path / "b.mha"))[1], np.stack([VOLUME, VOLUME + 1], -1))


@pytest.mark.parametrize("fields", ["", "spacings: 2 2 nan\n"])
def test_a_voxel_size_that_nothing_says_is_told(tmp_path, fields):
    nrrd(tmp_path / "a.nrrd", fields)
    meta(tmp_path / "a.mha", "")
    for name in ("a.nrrd", "a.mha"):
        assert "taken for 1 mm" in inspect_scan(str(tmp_path / name)).notes["no voxel size"]
    nrrd(tmp_path / "a.nrrd", PLACE)
    assert inspect_scan(str(tmp_path / "a.nrrd")).notes == {}


def test_shear_is_told(tmp_path):
    nrrd(tmp_path / "a.nrrd", PLACE.replace("(0,2,0)", "(1,2,0)"))
    assert "26.6 degrees off the right angle" in inspect_scan(str(tmp_path / "a.nrrd")).notes["shear"]


@pytest.mark.parametrize("ending", ["mhd", "nhdr"])
def test_headers_with_their_voxels_beside_them(tmp_path, ending):
    """Headers of one size in every folder: each scan has a fingerprint of its own, which a copy of it shares."""
    paths = [tmp_path / str(number) / f"image.{ending}" for number in range(3)]
    for number, path in enumerate(paths):
        path.parent.mkdir()
        itk.imwrite(itk.image_from_array(np.ascontiguousarray(VOLUME.T) + number), str(path))
        assert data_files(str(path)) == [str(path.with_suffix(".raw"))]
    assert len({fingerprint(str(path)) for path in paths}) == 3
    shutil.copytree(tmp_path / "0", tmp_path / "copy")
    assert fingerprint(str(tmp_path / "copy" / paths[0].name)) == fingerprint(str(paths[0]))


def test_voxels_in_a_list_of_files_or_a_pattern(tmp_path):
    head = f"ObjectType = Image\nNDims = 3\n{META}DimSize = 8 9 7\nElementType = MET_SHORT\nElementDataFile = "
    names = [f"s{number:02d}.raw" for number in range(7)]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(VOLUME[..., number].tobytes(order="F"))
    for rest in ("LIST 2\n" + "\n".join(names) + "\n", "s%02d.raw 0 6 1\n"):
        (tmp_path / "a.mhd").write_text(head + rest)
        assert np.array_equal(read_scan(str(tmp_path / "a.mhd"))[1], VOLUME)
        assert [Path(name).name for name in data_files(str(tmp_path / "a.mhd"))] == names


def test_a_changed_byte_of_a_compressed_nifti_file_is_found(tmp_path):
    """Before, its checksum was not read. What stands behind a whole file is no fault of it."""
    path = tmp_path / "a.nii.gz"
    nib.save(nib.Nifti1Image(VOLUME, AFFINE), path)
    content = path.read_bytes()
    raw = gzip.decompress(content)
    path.write_bytes(content[:-6])
    assert "copy it anew" in str(check_scan(str(path)))
    stored = bytearray(gzip.compress(raw, 0))
    stored[-200] ^= 1
    path.write_bytes(stored)
    assert "CRC check failed" in str(check_scan(str(path)))
    for behind in (b"\0" * 20, b"junk"):
        path.write_bytes(content + behind)
        assert check_scan(str(path)) is None
