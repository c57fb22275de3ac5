# SPDX-License-Identifier: Apache-2.0

"""DICOM series, however they lie: placed as the standard says, or refused by name with a remedy that helps."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest
import SimpleITK as sitk
from geometries import RAS_TO_LPS, as_itk_reads, same, write_enhanced, write_series
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.fileset import FileSet
from scripts.data import check_scan, find_scans, inspect_scan, read_scan, scan_geometry, series_paths, write_nifti

SIZE = (5, 6, 8)
VOLUME = np.random.default_rng(0).permutation(int(np.prod(SIZE))).reshape(SIZE)


def standard(step, orientation=(1, 0, 0, 0, 1, 0), pixel=(1, 1), origin=(0, 0, 0)) -> np.ndarray:
    """The matrix of PS3.3 C.7.6.2.1.1, RAS."""
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = np.array(orientation[:3]) * pixel[1], np.array(orientation[3:]) * pixel[0]
    affine[:3, 2], affine[:3, 3] = step, origin
    return RAS_TO_LPS @ affine


def itk_series(folder) -> np.ndarray:
    """Where SimpleITK places the series of a folder, RAS."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return RAS_TO_LPS @ affine


class TestPlace:
    def test_oblique_with_rectangular_pixels(self, tmp_path):
        """In the order of the positions, whatever the files' order; as ITK places it."""
        c, s = np.cos(0.3), np.sin(0.3)
        where = {"orientation": (1, 0, 0, 0, c, s), "pixel": (1.5, 0.5), "origin": (3, 4, 5)}
        step = 2 * np.array([0, -s, c])
        write_series(tmp_path, VOLUME, step, **where, order=[3, 1, 7, 0, 2, 6, 4, 5])
        geometry, array = read_scan(str(tmp_path))
        assert same(geometry.affine, standard(step, **where), 1e-5)
        assert same(geometry.itk_affine, itk_series(tmp_path), 1e-5)
        assert np.array_equal(array, VOLUME)
        assert geometry.notes == {}

    @pytest.mark.parametrize("degrees", [20, -12])
    def test_tilted_gantry(self, tmp_path, degrees):
        """ITK drops the tilt in silence; here it is kept and said, and ITK refuses what is written in its place."""
        t = np.radians(degrees)
        write_series(tmp_path / "series", VOLUME, (0, 0, 2), (1, 0, 0, 0, np.cos(t), np.sin(t)))
        geometry, array = read_scan(str(tmp_path / "series"))
        expected = standard((0, 0, 2), (1, 0, 0, 0, np.cos(t), np.sin(t)))
        assert same(geometry.affine, expected, 1e-5)
        assert not same(itk_series(tmp_path / "series"), expected)
        assert f"tilted gantry ({abs(degrees)}.0 degrees)" in inspect_scan(str(tmp_path / "series")).notes["shear"]
        write_nifti(array, geometry.affine, tmp_path / "out.nii", geometry)
        assert as_itk_reads(tmp_path / "out.nii") is None

    def test_rounded_positions_are_no_tilt(self, tmp_path):
        rng = np.random.default_rng(0)
        write_series(tmp_path, VOLUME, places=np.arange(8) + rng.uniform(-0.004, 0.004, 8))
        assert inspect_scan(str(tmp_path)).notes == {}
        assert scan_geometry(str(tmp_path)).itk_affine is not None

    def test_slices_that_are_a_little_uneven_are_told(self, tmp_path):
        write_series(tmp_path, VOLUME, places=[0, 1, 2.08, 3, 4, 5, 6, 7])
        assert "off an even stack" in inspect_scan(str(tmp_path)).notes["uneven slices"]

    def test_each_slice_has_its_own_slope(self, tmp_path):
        """As in PET: the type of the first slice does not round the others."""
        scales = [1, 0.5, 0.25, 2, 1, 1, 1, 1]
        write_series(tmp_path, VOLUME, scales=scales)
        assert np.allclose(read_scan(str(tmp_path))[1], VOLUME * np.array(scales))


class TestEnhanced:
    @pytest.mark.parametrize("order", [range(8), range(7, -1, -1), [0, 2, 4, 6, 1, 3, 5, 7]])
    def test_frames_in_any_order(self, tmp_path, order):
        write_enhanced(tmp_path / "a.dcm", VOLUME, order=order)
        for path in (tmp_path, tmp_path / "a.dcm"):
            geometry, array = read_scan(str(path))
            assert same(geometry.affine, standard((0, 0, 2)))
            assert np.array_equal(array, VOLUME)
            assert check_scan(str(path)) is None

    def test_each_frame_has_its_own_slope(self, tmp_path):
        scales = np.array([2, 1, 0.5, 1, 1, 3, 1, 1])
        write_enhanced(tmp_path / "a.dcm", VOLUME, order=[2, 0, 1, 3, 4, 5, 6, 7], scales=scales)
        assert np.allclose(read_scan(str(tmp_path))[1], VOLUME * scales)

    def test_two_phases_in_one_file(self, tmp_path):
        write_enhanced(tmp_path / "a.dcm", VOLUME, order=[*range(8), *range(8)])
        assert "several images at one position (2 at 8 of 8 positions)" in (check_scan(str(tmp_path)) or "")


class TestRefused:
    """Each remedy was tried."""

    def test_phases(self, tmp_path):
        uid = write_series(tmp_path / "both", VOLUME, AcquisitionNumber=1)
        write_series(tmp_path / "both", VOLUME, uid=uid, name="second_{}.dcm", AcquisitionNumber=2)
        message = check_scan(str(tmp_path / "both")) or ""
        assert "several images at one position (2 at 8 of 8 positions)" in message
        assert "told apart by AcquisitionNumber (1, 2)" in message
        (tmp_path / "one").mkdir()
        for path in (tmp_path / "both").glob("second_*"):
            shutil.move(path, tmp_path / "one" / path.name)
        assert [check_scan(str(tmp_path / name)) for name in ("both", "one")] == [None, None]

    def test_copies(self, tmp_path):
        write_series(tmp_path / "a", VOLUME)
        shutil.copy(tmp_path / "a" / "image_003.dcm", tmp_path / "a" / "image_003 (1).dcm")
        message = check_scan(str(tmp_path / "a")) or ""
        assert "files are there twice (image_003 (1).dcm and image_003.dcm)" in message
        (tmp_path / "b").mkdir()
        shutil.move(tmp_path / "a" / "image_003 (1).dcm", tmp_path / "b")
        assert check_scan(str(tmp_path / "a")) is None

    def test_several_series_are_listed_and_each_can_be_named(self, tmp_path):
        for name in ("T1 MPR", "T2 FLAIR"):
            write_series(tmp_path, VOLUME, name=name[:2] + "_{}.dcm", SeriesDescription=name)
        message = check_scan(str(tmp_path)) or ""
        assert "holds 2 series: T1_MPR (8 images), T2_FLAIR (8 images); name one" in message
        assert series_paths(tmp_path) == [str(tmp_path / "T1_MPR"), str(tmp_path / "T2_FLAIR")]
        assert [check_scan(path) for path in series_paths(tmp_path)] == [None, None]
        assert [scan["image"] for scan in find_scans(str(tmp_path), min_subjects=1)] == series_paths(tmp_path)
        assert "does not exist" in (check_scan(str(tmp_path / "T3")) or "")

    @pytest.mark.parametrize(("description", "names"), [("a", ["a_4", "a_5"]), ("", ["4", "5"])])
    def test_series_of_one_description_are_told_apart_by_number(self, tmp_path, description, names):
        for number in (4, 5):
            more = {"SeriesDescription": description, "SeriesNumber": number}
            write_series(tmp_path, VOLUME, name=f"{number}_{{}}.dcm", **more)
        assert series_paths(tmp_path) == [str(tmp_path / name) for name in names]
        assert [check_scan(path) for path in series_paths(tmp_path)] == [None, None]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"places": [0, 1, 2, 3, 6, 7, 8, 9]}, "lacks slices: 2 are missing"),
            ({"places": [0, 1, 2, 3, 4.5, 6, 7.5, 9]}, "has slices 2 to 3 mm apart; dcm2niix"),
            ({"SamplesPerPixel": 3}, "holds colours (3 values a voxel)"),
            ({"ImagePositionPatient": []}, "does not say where its slices lie"),
        ],
    )
    def test_irregular(self, tmp_path, change, message):
        write_series(tmp_path, VOLUME, **change)
        assert message in (check_scan(str(tmp_path)) or "")

    def test_localizer(self, tmp_path):
        uid = write_series(tmp_path, VOLUME)
        write_series(tmp_path, VOLUME[..., :2], (2, 0, 0), (0, 1, 0, 0, 0, 1), uid=uid, name="scout_{}.dcm")
        assert "images of several orientations (8 and 2 images)" in (check_scan(str(tmp_path)) or "")


class TestDisc:
    def test_the_index_is_no_scan(self, tmp_path):
        """A patient's CD: DICOMDIR at the top, the series below."""
        for patient in range(2):
            write_series(tmp_path / "flat", VOLUME, name=f"{patient}_{{}}.dcm", SeriesNumber=patient + 1)
        files = FileSet()
        for path in sorted((tmp_path / "flat").glob("*.dcm")):
            files.add(str(path))
        files.write(tmp_path / "cd")
        assert (tmp_path / "cd" / "DICOMDIR").is_file()
        found = [scan["image"] for scan in find_scans(str(tmp_path / "cd"), min_subjects=1)]
        assert len(found) == 2
        assert all("DICOMDIR" not in path and check_scan(path) is None for path in found)

    def test_structures_beside_the_images(self, tmp_path):
        write_series(tmp_path, VOLUME)
        write_series(tmp_path, VOLUME[..., :1], name="RS_{}.dcm", Modality="RTSTRUCT")
        assert check_scan(str(tmp_path)) is None


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    order=st.permutations(range(6)),
    step=st.sampled_from([(0, 0, 2), (0, 0, -2), (0.5, 0, 2), (0, 2, 0), (3, 0, 0)]),
    tilt=st.sampled_from([0.0, 0.2, -0.4]),
    places=st.lists(st.sampled_from([0, 0, 0, 0.02, 0.3, 1]), min_size=6, max_size=6),
    twice=st.booleans(),
    pixel=st.sampled_from([(1, 1), (0.5, 2)]),
)
def test_any_series(tmp_path_factory, order, step, tilt, places, twice, pixel):
    """Placed as the standard says, with each slice at its position; or refused by name."""
    folder, volume = tmp_path_factory.mktemp("series"), VOLUME[..., :6]
    orientation = (1, 0, 0, 0, np.cos(tilt), np.sin(tilt))
    where = np.arange(6) + np.array(places)
    write_series(folder, volume, step, orientation, pixel, order=order, places=where)
    if twice:
        shutil.copy(folder / "image_000.dcm", folder / "copy.dcm")
    problem = check_scan(str(folder))
    if problem is not None:
        named = ("several images at one position", "lacks slices", "mm apart; dcm2niix", "not lie on one line")
        assert any(name in problem for name in (*named, "singular"))
        even = np.abs(np.diff(where) - 1).max() < 0.01
        in_plane = abs(np.dot(step, np.cross(orientation[:3], orientation[3:]))) < 1e-6
        assert twice or in_plane or not even
        return
    assert not twice
    geometry, array = read_scan(str(folder))
    for k in range(6):
        found = int(np.flatnonzero([np.array_equal(array[..., n], volume[..., k]) for n in range(6)])[0])
        place = (geometry.affine @ [0, 0, found, 1])[:3] * [-1, -1, 1]
        assert np.linalg.norm(place - where[k] * np.array(step)) <= 0.15 * np.linalg.norm(step)
    axes = [np.array(orientation[:3]) * pixel[1], np.array(orientation[3:]) * pixel[0]]
    assert np.allclose(geometry.affine[:3, :2] * [[-1], [-1], [1]], np.stack(axes, axis=1), atol=0.02)


@pytest.mark.parametrize(
    ("fields", "keep", "said"),
    [
        ({"ImagesInAcquisition": 8}, slice(0, 6), r"has 6 images, and ImagesInAcquisition says 8"),
        (
            {"NumberOfSeriesRelatedInstances": 8},
            slice(2, 8),
            r"has 6 images, and NumberOfSeriesRelatedInstances says 8",
        ),
        ({}, slice(2, 8), r"has images numbered from 3 on \(InstanceNumber\)"),
        ({"order": list(range(8))[::-1]}, slice(1, 8), "has images numbered from 2 on"),
        ({"ImagesInAcquisition": 8}, slice(0, 8), None),
        ({}, slice(0, 6), None),  # nothing tells
        ({"order": [3, 0, 5, 1, 4, 2, 7, 6]}, slice(0, 8), None),
    ],
)
def test_first_or_last_slices_that_are_missing_are_told_where_images_tell(tmp_path, fields, keep, said):
    """Their positions do not: what is left is an even stack."""
    write_series(tmp_path, np.arange(640).reshape(8, 10, 8), **fields)
    for path in set(tmp_path.iterdir()) - set(sorted(tmp_path.iterdir())[keep]):
        path.unlink()
    notes = scan_geometry(str(tmp_path)).notes
    assert ("perhaps incomplete" in notes) == (said is not None)
    if said:
        assert re.search(said + ".*copy the series anew", notes["perhaps incomplete"])
