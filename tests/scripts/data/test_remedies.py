# SPDX-License-Identifier: Apache-2.0

"""What a message advises to do with a scan makes it usable, and no message advises to remove one."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from geometries import grid, sheared, write_header
from nibabel.processing import resample_from_to, resample_to_output
from scripts.data import LoadScand, check_label, check_scan, inspect_scan, scan_geometry
from scripts.errors import InputError

SIZE = (14, 16, 12)
PLACE = grid(SIZE, (2, 2.5, 3))
VOLUME = np.random.default_rng(0).integers(-900, 1200, SIZE).astype(np.int16)
SCRIPTS = Path(__file__).parents[3] / "bundle" / "scripts"


def save(values: np.ndarray, path: Path) -> None:
    nib.save(nib.Nifti1Image(values, PLACE), path)


def change_header(path: Path, target: Path, **fields) -> None:
    """Copy an uncompressed file with other fields in its header."""
    content = path.read_bytes()
    header = nib.Nifti1Header(content[:348], check=False)
    for name, value in fields.items():
        header[name] = value
    target.write_bytes(header.binaryblock + content[348:])


def nans(path):
    save(np.where(np.arange(SIZE[2]) < 2, np.nan, VOLUME).astype(np.float32), path)


def fill(path, target):
    values = nib.load(path).get_fdata()
    values[~np.isfinite(values)] = -1000
    save(values.astype(np.float32), target)


def colours(path):
    values = np.zeros(SIZE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    values["G"] = VOLUME % 255
    save(values, path)


def two_volumes(path):
    save(np.stack([VOLUME, VOLUME], -1), path)


def first_volume(path, target):
    nib.save(nib.four_to_three(nib.load(path))[0], target)


def set_sform(path, target):
    image = nib.load(path)
    image.set_sform(PLACE, 1)
    nib.save(image, target)


def set_zooms(path, target):
    image = nib.load(path)
    image.header.set_zooms((2, 2.5, 3))
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), None, image.header), target)


def header(**fields) -> Callable[[Path], object]:
    options = {"codes": fields.pop("codes", (1, 1))}
    return lambda path: write_header(path, VOLUME, fields.pop("sform", PLACE), **options, **fields)


def copy_anew(path, target):
    save(VOLUME, target)


def damage(path):
    save(VOLUME, path)
    path.write_bytes(path.read_bytes()[:-600])


CASES = {
    "NaN": (nans, r"store the value of the background there, in a CT -1000", fill),
    "complex": (
        lambda path: save(VOLUME * (1 + 1j), path),
        r"store their magnitude \(numpy.abs\)",
        lambda path, target: save(np.abs(np.asarray(nib.load(path).dataobj)).astype(np.float32), target),
    ),
    "colours": (
        colours,
        "store one grey value a voxel",
        lambda path, target: save(np.asarray(nib.load(path).dataobj)["G"].astype(np.int16), target),
    ),
    "two volumes": (two_volumes, r"store one scan a file \(nibabel.four_to_three\)", first_volume),
    "singular": (
        header(sform=np.diag([0.0, 1, 1, 1]), qform=PLACE),
        r"with nibabel's img.set_sform\(affine, 1\)",
        set_sform,
    ),
    "code": (header(codes=(7, 0)), "set a right one", lambda path, target: change_header(path, target, sform_code=1)),
    "no voxel size": (header(codes=(0, 1), pixdim=[0, 0, 0]), "set their true size in the header", set_zooms),
    "no rotation": (
        header(codes=(0, 1), quatern_b=3.0),
        "no rotation .*; set a right one",
        lambda path, target: change_header(path, target, quatern_b=0.0),
    ),
    "metres": (
        header(xyzt_units=1),
        "metres large by its header; correct its voxel size or unit",
        lambda path, target: change_header(path, target, xyzt_units=2),
    ),
    "too large": (
        lambda path: save(VOLUME * 1e300, path),
        "more than 32-bit floating point holds; divide them",
        lambda path, target: save((nib.load(path).get_fdata() / 1e300).astype(np.float32), target),
    ),
    "by its slope": (
        lambda path: write_header(path, VOLUME, PLACE, scl_slope=1e37, scl_inter=0),
        "or correct scl_slope",
        lambda path, target: change_header(path, target, scl_slope=1),
    ),
    "values in the header": (
        header(vox_offset=0),
        r"within its header \(vox_offset\); set 352 there",
        lambda path, target: change_header(path, target, vox_offset=352),
    ),
    "a type nobody reads": (
        lambda path: (save(VOLUME, path), change_header(path, path, datatype=1, bitpix=1)),
        "datatype 1, which is not read; store float32",
        lambda path, target: save(VOLUME.astype(np.float32), target),
    ),
    "a type nobody knows": (
        lambda path: (save(VOLUME, path), change_header(path, path, datatype=777)),
        "datatype 777, which is not read; store float32",
        lambda path, target: save(VOLUME.astype(np.float32), target),
    ),
    "no intercept": (
        lambda path: write_header(path, VOLUME, PLACE, scl_slope=2, scl_inter=np.nan),
        "scl_inter nan; set right ones in the header, 0 for none",
        lambda path, target: change_header(path, target, scl_inter=0),
    ),
    "far from zero": (
        lambda path: save(VOLUME + 1e9, path),
        "hardly tells apart; subtract the lowest one",
        lambda path, target: save(nib.load(path).get_fdata() - nib.load(path).get_fdata().min(), target),
    ),
    "damaged": (damage, "copy it anew", copy_anew),
}


def test_a_header_of_fewer_voxels_than_the_file_has_is_told(tmp_path):
    """Corrected, nothing is said."""
    save(VOLUME, tmp_path / "scan.nii")
    change_header(tmp_path / "scan.nii", tmp_path / "bad.nii", dim=[3, 7, *SIZE[1:], 1, 1, 1, 1])
    compressed = tmp_path / "bad.nii.gz"
    compressed.write_bytes(gzip.compress((tmp_path / "bad.nii").read_bytes()))
    for path in (tmp_path / "bad.nii", compressed):
        said = inspect_scan(str(path)).notes["bytes left over"]
        assert said.startswith(
            f"goes on for {VOLUME.nbytes // 2} bytes behind its voxels; if its header has a wrong size"
        )
    change_header(tmp_path / "bad.nii", tmp_path / "good.nii", dim=[3, *SIZE, 1, 1, 1, 1])
    assert inspect_scan(str(tmp_path / "good.nii")).notes == {}


def test_what_is_read_without_a_check_is_refused_too(tmp_path):
    """By a script that embeds a scan, or after a scan has changed."""
    loader = LoadScand("image")
    for name, damaging in (("NaN", nans), ("values", lambda path: save(VOLUME * 1e300, path)), ("two", two_volumes)):
        damaging(tmp_path / f"{name}.nii")
        with pytest.raises(
            InputError, match=rf"{name}\.nii (has voxels that are NaN, infinite, or too|holds 2 volumes)"
        ):
            loader({"image": str(tmp_path / f"{name}.nii")})
    with pytest.raises(InputError, match=r"none\.nii does not exist"):
        loader({"image": str(tmp_path / "none.nii")})


def test_values_that_32_bits_hold_are_no_fault(tmp_path):
    """Large whole numbers, and small ones."""
    for number, values in enumerate((VOLUME % 5 + 1e6, VOLUME * 1e30, VOLUME * 1e-30)):
        save(values, tmp_path / f"{number}.nii")
        assert check_scan(str(tmp_path / f"{number}.nii")) is None


@pytest.mark.parametrize("case", CASES)
def test_nifti(tmp_path, case):
    damaging, message, remedy = CASES[case]
    bad, path = tmp_path / "bad.nii", tmp_path / "scan.nii"
    damaging(bad)
    assert re.search(message, str(check_scan(str(bad))))
    remedy(bad, path)
    assert check_scan(str(path)) is None
    assert np.allclose(scan_geometry(str(path)).affine[:3, :3], PLACE[:3, :3], atol=1e-4)


@pytest.mark.parametrize("name", ["scan.mgz", "scan.hdr", "scan.img"])
def test_formats_that_are_not_read(tmp_path, name):
    if name.endswith("mgz"):
        nib.save(nib.MGHImage(VOLUME, PLACE), tmp_path / name)
    else:
        nib.save(nib.Nifti1Pair(VOLUME, PLACE), tmp_path / name)
    assert "make it NIfTI, as with nibabel.save(nibabel.load(it), 'scan.nii.gz')" in str(
        check_scan(str(tmp_path / name))
    )
    nib.save(nib.load(tmp_path / name), tmp_path / "scan.nii.gz")
    assert check_scan(str(tmp_path / "scan.nii.gz")) is None
    assert np.allclose(scan_geometry(str(tmp_path / "scan.nii.gz")).affine, PLACE, atol=1e-4)


def test_shear_that_itk_cannot_write(tmp_path):
    loader = LoadScand("image")
    loader._loader.image_only = False  # as MONAI Label sets it
    write_header(tmp_path / "a.nii", VOLUME, sheared(15) @ PLACE, codes=(1, 0))
    with pytest.raises(InputError, match=r"NIfTI by nibabel.processing.resample_to_output"):
        loader({"image": str(tmp_path / "a.nii")})
    nib.save(resample_to_output(nib.load(tmp_path / "a.nii"), (2, 2.5, 3)), tmp_path / "straight.nii")
    assert loader({"image": str(tmp_path / "straight.nii")})["image"].ndim == 4


def test_label_maps(tmp_path):
    save(VOLUME, tmp_path / "scan.nii")
    label = np.where(VOLUME > 0, 2**53 + 1, 0)
    nib.save(nib.Nifti1Image(label, PLACE, dtype="int64"), tmp_path / "label.nii")
    with pytest.raises(InputError, match="number the structures anew"):
        check_label(str(tmp_path / "scan.nii"), str(tmp_path / "label.nii"))
    save(np.unique(label, return_inverse=True)[1].reshape(SIZE).astype(np.uint8), tmp_path / "label.nii")
    check_label(str(tmp_path / "scan.nii"), str(tmp_path / "label.nii"))
    coarse = nib.Nifti1Image((VOLUME > 0).astype(np.uint8)[::2, ::2, ::2], PLACE @ np.diag([2, 2, 2, 1]))
    nib.save(coarse, tmp_path / "coarse.nii")
    with pytest.raises(InputError, match=r"resample the label map, as by nibabel.processing.resample_from_to"):
        check_label(str(tmp_path / "scan.nii"), str(tmp_path / "coarse.nii"))
    nib.save(resample_from_to(coarse, nib.load(tmp_path / "scan.nii"), order=0), tmp_path / "coarse.nii")
    check_label(str(tmp_path / "scan.nii"), str(tmp_path / "coarse.nii"))


@pytest.mark.parametrize("turn", [np.eye(4)[[2, 0, 1, 3]].T, np.diag([-1.0, 1, 1, 1]), np.eye(4)[[1, 0, 2, 3]]])
def test_a_label_map_with_its_axes_in_another_order(tmp_path, turn):
    """Refused, and on the scan's grid after it was resampled as is said: the same voxels, none lost."""
    save(VOLUME, tmp_path / "scan.nii")
    codes = (VOLUME > 0).astype(np.uint8) + (VOLUME > 600)
    drawn = nib.Nifti1Image(codes, PLACE)
    ornt = nib.orientations.io_orientation(turn)
    nib.save(drawn.as_reoriented(ornt), tmp_path / "turned.nii")
    with pytest.raises(InputError, match=r"resample the label map, as by nibabel\.processing\.resample_from_to"):
        check_label(str(tmp_path / "scan.nii"), str(tmp_path / "turned.nii"))
    again = resample_from_to(nib.load(tmp_path / "turned.nii"), nib.load(tmp_path / "scan.nii"), order=0)
    nib.save(again, tmp_path / "label.nii")
    check_label(str(tmp_path / "scan.nii"), str(tmp_path / "label.nii"))
    assert np.array_equal(np.asarray(again.dataobj), codes)


def test_no_message_advises_to_remove_data():
    advice = re.compile(r'"[^"]*\b(remove|delete|discard)\b[^"]*"')
    found = [
        f"{path.name}: {line.strip()}"
        for path in SCRIPTS.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if advice.search(line) and '"""' not in line
    ]
    assert found == []
