# SPDX-License-Identifier: Apache-2.0

"""Results lie on their scan in nibabel and in SimpleITK, whatever its header says: of matches, features, children."""

from __future__ import annotations

import os

import itk
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from geometries import (
    RAS_TO_LPS,
    as_itk_reads,
    grid,
    header_kinds,
    same,
    turned,
    write_enhanced,
    write_header,
    write_series,
)
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd, Orientationd, SaveImaged, Spacingd
from nibabel.processing import resample_from_to
from scipy.ndimage import gaussian_filter
from scripts.data import LoadScan, LoadScand, check_case, check_label, scan_geometry, write_displacement, write_nifti
from scripts.errors import InputError

SIZE = (14, 16, 12)
GRID = grid(SIZE, (2, 2.5, 3))
KINDS = header_kinds(GRID)


@pytest.fixture(params=KINDS)
def scan(request, tmp_path):
    """A scan of each kind."""
    volume = 100 * gaussian_filter(np.random.default_rng(1).normal(size=SIZE), 1.5).astype(np.float32)
    return write_header(tmp_path / "fixed.nii", volume, **KINDS[request.param])


def on_it(scan, result) -> bool:
    """Whether both libraries place a result where they place the scan."""
    in_nibabel = same(nib.load(result).affine, nib.load(scan).affine)
    return in_nibabel and same(as_itk_reads(result), as_itk_reads(scan))


def predicted(scan, folder):
    """The label map of what is above 0, prepared, inverted and saved as the configurations of children do it."""
    steps = Compose(
        [
            LoadScand("image", pixdim=[3, 3, 3]),
            Orientationd("image", "RAS", labels=None),
            Spacingd("image", [3, 3, 3], mode="bilinear"),
        ]
    )
    data = steps({"image": str(scan)})
    data["pred"] = MetaTensor((data["image"].as_tensor() > 0).float(), meta=data["image"].meta)
    invert = Invertd("pred", steps, "image", nearest_interp=True, to_tensor=True)
    save = SaveImaged(
        "pred",
        output_dir=folder,
        writer="scripts.data.ScanWriter",
        output_dtype=np.int16,
        separate_folder=False,
        resample=False,
        print_log=False,
        output_postfix="seg",
    )
    save(invert(data))
    (written,) = folder.iterdir()
    return written


def test_volumes(scan, tmp_path):
    """Warped scans, label maps, probabilities."""
    geometry = scan_geometry(str(scan))
    for channels in ((), (3,)):
        result = tmp_path / "result.nii.gz"
        write_nifti(np.zeros((*SIZE, *channels), np.float32), geometry.affine, result, geometry)
        if channels:  # ITK reads four axes, of which it does not check three
            assert same(nib.load(result).affine, nib.load(scan).affine)
        else:
            assert on_it(scan, result)


def test_features_on_a_grid_of_their_own(scan, tmp_path):
    """Turned, of other voxels and shifted: either library has each of their voxels where it has the scan's there."""
    geometry, in_itk = scan_geometry(str(scan)), as_itk_reads(scan)
    to_scan = np.array([[0, -1.5, 0, 12], [2, 0, 0, 1], [0, 0, -1.2, 9], [0, 0, 0, 1.0]])  # from their voxels
    result = tmp_path / "result.nii.gz"
    write_nifti(np.zeros((6, 7, 8), np.float32), geometry.affine @ to_scan, result, geometry)
    assert same(nib.load(result).affine, nib.load(scan).affine @ to_scan)
    assert same(as_itk_reads(result), None if in_itk is None else in_itk @ to_scan)


@pytest.mark.parametrize("moving_kind", ["ordinary", "codes are 0", "sform and qform differ", "micrometres"])
def test_displacement(scan, tmp_path, moving_kind):
    """SimpleITK resamples the moving scan with it as is done here, or refuses the fixed scan and the field."""
    moving_path = write_header(tmp_path / "moving.nii", np.asarray(nib.load(scan).dataobj), **KINDS[moving_kind])
    fixed, moving = scan_geometry(str(scan)), scan_geometry(str(moving_path))
    voxels = np.indices(SIZE).reshape(3, -1)
    shift = 2 * np.sin(np.indices(SIZE) / 4).reshape(3, -1)  # in voxels of the moving scan
    targets = moving.affine[:3, :3] @ (voxels + shift) + moving.affine[:3, 3:]
    field = targets - fixed.affine[:3, :3] @ voxels - fixed.affine[:3, 3:]
    path = tmp_path / "displacement.nii.gz"
    write_displacement(field.reshape(3, *SIZE), fixed.affine, path, fixed, moving)
    if fixed.itk_affine is None:
        assert as_itk_reads(path) is None
        return
    reading = sitk.Cast(sitk.ReadImage(str(path)), sitk.sitkVectorFloat64)
    transform = sitk.DisplacementFieldTransform(reading)
    moving_image = sitk.ReadImage(str(moving_path))
    for index in ((3, 4, 5), (8, 7, 6), (10, 2, 9)):
        point = sitk.ReadImage(str(scan)).TransformIndexToPhysicalPoint(index)
        flat = np.ravel_multi_index(index, SIZE)
        found = moving_image.TransformPhysicalPointToContinuousIndex(transform.TransformPoint(point))
        assert np.allclose(found, voxels[:, flat] + shift[:, flat], atol=2e-3)


def test_predictions_of_children(scan, tmp_path):
    """As their configurations prepare, invert and save."""
    written = predicted(scan, tmp_path / "out")
    assert nib.load(written).shape == SIZE
    assert nib.load(written).get_data_dtype() == np.int16
    assert on_it(scan, written)


def test_monai_label_places_its_answer_where_3d_slicer_has_the_scan(scan, tmp_path):
    """It writes with ITK and ``original_affine``; what ITK cannot write is refused."""
    loader = LoadScand("image")
    loader._loader.image_only = False  # as MONAI Label sets it
    if "shear" in scan_geometry(str(scan)).notes:
        with pytest.raises(InputError, match="sheared, which ITK cannot write"):
            loader({"image": str(scan)})
        return
    affine = RAS_TO_LPS @ np.asarray(loader({"image": str(scan)})["image"].meta["original_affine"])
    image = itk.image_from_array(np.zeros(SIZE[::-1], np.float32))
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetDirection(itk.matrix_from_array(affine[:3, :3] / spacing))
    image.SetSpacing(spacing)
    image.SetOrigin(affine[:3, 3])
    itk.imwrite(image, str(tmp_path / "label.nii.gz"))
    assert same(as_itk_reads(tmp_path / "label.nii.gz"), as_itk_reads(scan))


def test_a_label_map_that_3d_slicer_wrote_lies_on_its_scan(scan, tmp_path):
    """It is ITK's reading of the scan that it gets; prepared with the scan, it gets the scan's place."""
    if as_itk_reads(scan) is None:
        return
    volume = sitk.ReadImage(str(scan))
    label = sitk.Cast(volume > 0, sitk.sitkUInt8)
    label.CopyInformation(volume)
    path = str(tmp_path / "label.nii.gz")
    sitk.WriteImage(label, path)
    check_label(str(scan), path)
    assert check_case({"image": str(scan), "label": path}, [0, 1])[0] is None
    steps = Compose([LoadScand(["image", "label"]), Orientationd(["image", "label"], "RAS", labels=None)])
    data = steps({"image": str(scan), "label": path})
    assert torch.equal(data["image"].affine, data["label"].affine)
    assert torch.equal(data["image"] > 0, data["label"] > 0)
    alone = LoadScand(["moving", "image", "label"])({"image": path, "moving": str(scan), "label": path})
    assert torch.equal(alone["label"].affine, alone["moving"].affine)


def test_a_label_map_of_another_place_is_refused_where_no_check_was_made_before(scan, tmp_path):
    """MONAI Label trains on what its folder holds. What the message advises is read."""
    place = nib.load(scan)
    moved = nib.Nifti1Image(np.ones(SIZE, np.uint8), place.affine @ turned(0, [0, 0, 2]), place.header)
    nib.save(moved, tmp_path / "label.nii")
    case = {"image": str(scan), "label": str(tmp_path / "label.nii")}
    with pytest.raises(InputError, match=r"label.nii does not lie on its scan .*fixed.nii \(up to .* apart"):
        LoadScand(["image", "label"])(case)
    resampled = resample_from_to(moved, place, order=0)
    nib.save(resampled, tmp_path / "label.nii")
    assert LoadScand(["image", "label"])(case)["label"].sum() < np.prod(SIZE)
    check_label(**case)


OBLIQUE = (0.6, 0.8, 0, 0, 0, -1)
"""ImageOrientationPatient of turned coronal slices."""
SERIES = {
    "ordinary": {},
    "reversed": {"order": [5, 4, 3, 2, 1, 0]},
    "in no order": {"order": [3, 0, 5, 1, 4, 2]},
    "oblique": {"orientation": OBLIQUE, "step": (-1.6, 1.2, 0), "origin": (10, -20, 30)},
    "downwards": {"step": (0, 0, -2)},
    "voxels of two sizes": {"pixel": (0.7, 0.9)},
    "tilted": {"orientation": (1, 0, 0, 0, 0.94, 0.342)},
    "one of two series": {"SeriesDescription": "T1"},
    "enhanced": {},
}


@pytest.mark.parametrize("kind", SERIES)
def test_results_of_dicom_series(kind, tmp_path):
    """As the standard places each voxel, in nibabel; in ITK as it places the series, or ITK refuses both."""
    fields, volume = SERIES[kind], np.arange(480, dtype=np.int16).reshape(8, 10, 6) - 100
    scan = tmp_path / "ct"
    if kind == "enhanced":
        scan = scan / "a.dcm"
        write_enhanced(scan, volume, order=[2, 0, 1, 5, 4, 3])
        uid = None
    else:
        uid = write_series(scan, volume, **fields)
    if kind == "one of two series":
        write_series(scan, volume[..., ::-1], step=(0, 0, 5), name="b_{}.dcm", SeriesDescription="T2")
        scan = scan / "T1"
    pixel, step = fields.get("pixel", (1, 1)), fields.get("step", (0, 0, 2))
    orientation = np.array(fields.get("orientation", (1, 0, 0, 0, 1, 0)), dtype=float)
    across, down = (axis / np.linalg.norm(axis) for axis in (orientation[:3], orientation[3:]))
    standard = np.eye(4)
    standard[:3] = np.stack([across * pixel[1], down * pixel[0], step, fields.get("origin", (0, 0, 0))], axis=1)
    values, geometry = LoadScan()(str(scan)), scan_geometry(str(scan))
    upside = np.diag([1.0, 1, -1, 1]) + np.eye(4)[:, [3]] @ np.zeros((1, 4))
    upside[2, 3] = 5
    flipped = not np.array_equal(values[0], volume)  # slices lie in the order of the normal of their plane
    to_volume = upside if flipped else np.eye(4)
    assert np.array_equal(values[0].numpy()[..., ::-1] if flipped else values[0].numpy(), volume)
    place = RAS_TO_LPS @ standard @ to_volume
    assert same(geometry.affine, place)

    write_nifti(values[0].numpy(), geometry.affine, tmp_path / "out.nii", geometry)
    write_displacement(np.zeros((3, *volume.shape)), geometry.affine, tmp_path / "field.nii", geometry, geometry)
    coarse = place @ np.diag([2, 2, 1, 1])
    write_nifti(np.zeros((4, 5, 6), np.float32), coarse, tmp_path / "features.nii", geometry)
    prediction = predicted(scan, tmp_path / "seg")
    assert same(nib.load(tmp_path / "features.nii").affine, coarse)
    for path in (tmp_path / "out.nii", tmp_path / "field.nii", prediction):
        assert same(nib.load(path).affine, place)
    label = np.asarray(nib.load(prediction).dataobj)
    assert (label == (values[0].numpy() > 0)).mean() > 0.75  # voxels of 3 mm between
    if kind == "tilted":
        assert as_itk_reads(tmp_path / "out.nii") is None
        assert as_itk_reads(prediction) is None
        return
    for path in (tmp_path / "out.nii", tmp_path / "field.nii", prediction):
        assert same(as_itk_reads(path), place)
    if uid is not None:  # of an enhanced file ITK alone takes voxels of 1 mm
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "ct"), uid))
        image, found = reader.Execute(), sitk.ReadImage(str(tmp_path / "out.nii"))
        for index in ((0, 0, 0), (7, 2, 5), (3, 9, 1)):
            point = image.TransformIndexToPhysicalPoint(index)
            assert found[found.TransformPhysicalPointToIndex(point)] == image[index]


@pytest.mark.parametrize(
    ("fields", "pixdim", "message"),
    [
        ({"sform": np.diag([500, 500, 500, 1]) @ GRID}, [0.5] * 3, "would be enormous, 2.8e\\+04 x.* GB of memory"),
        ({"sform": GRID, "xyzt_units": 3}, [1.0] * 3, "would be next to nothing, 1 x 1 x 1 voxels"),
    ],
)
def test_sizes_that_cannot_be(tmp_path, fields, pixdim, message):
    """Named before memory is taken; with the unit corrected the scan is read."""
    volume = np.random.default_rng(0).normal(size=SIZE).astype(np.float32)
    path = str(write_header(tmp_path / "a.nii", volume, **fields))
    with pytest.raises(InputError, match=message):
        LoadScand("image", pixdim)({"image": path})
    write_header(tmp_path / "a.nii", volume, GRID, xyzt_units=2)
    assert LoadScand("image", pixdim)({"image": path})["image"].shape == (1, *SIZE)


def test_a_size_that_this_machine_has_no_memory_for(tmp_path, monkeypatch):
    write_header(tmp_path / "a.nii", np.ones(SIZE, np.int16), GRID)
    monkeypatch.setattr(os, "sysconf", lambda name: 4096 if name == "SC_PAGE_SIZE" else 100)
    with pytest.raises(InputError, match=r"a.nii would be enormous, 28 x 40 x 36 voxels \(0.00242 GB of memory\)"):
        LoadScand("image", [1, 1, 1])({"image": str(tmp_path / "a.nii")})
    assert LoadScand("image", [4, 4, 4])({"image": str(tmp_path / "a.nii")})["image"].shape == (1, *SIZE)
