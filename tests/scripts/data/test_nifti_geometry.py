# SPDX-License-Identifier: Apache-2.0

"""Whatever a NIfTI header says of its place: read as nibabel and ITK read it, or refused by name."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from geometries import as_itk_reads, grid, same, sheared, turned, write_header
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scripts.data import check_scan, inspect_scan, read_scan, scan_geometry, write_nifti

SIZE = (6, 7, 8)
VOLUME = np.arange(np.prod(SIZE), dtype=np.float32).reshape(SIZE)
GRID = grid(SIZE, (2, 3, 4))
FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

numbers = st.sampled_from([0.0, 1.0, 2.5, -1.0, 1e-3, 1e3, float("nan"), float("inf")])


class TestKinds:
    """What is said of each kind, and what is used."""

    def told(self, path) -> dict[str, str]:
        check = inspect_scan(str(path))
        assert check.problem is None
        return dict(check.notes)

    def test_ordinary(self, tmp_path):
        path = write_header(tmp_path / "a.nii", VOLUME, GRID)
        assert self.told(path) == {}
        assert same(scan_geometry(str(path)).affine, GRID)

    @pytest.mark.parametrize("qfac", [0, -1, 2, -5])
    def test_handedness_by_qform(self, tmp_path, qfac):
        """Old files have 0 there, which stands for 1; nibabel and ITK go by the sign."""
        path = write_header(tmp_path / "a.nii", VOLUME, GRID, codes=(0, 1))
        content = bytearray(path.read_bytes())
        content[76:80] = np.float32(qfac).tobytes()
        path.write_bytes(content)
        assert self.told(path) == {}
        found = scan_geometry(str(path)).affine
        assert np.sign(found[2, 2]) == (-1 if qfac < 0 else 1)
        assert same(found, as_itk_reads(path))
        assert qfac not in (0, -1) or same(found, nib.load(path).affine)

    def test_no_code_at_all(self, tmp_path):
        path = write_header(tmp_path / "a.nii", VOLUME, GRID, codes=(0, 0))
        assert "does not say how it lies" in self.told(path)["no orientation"]
        assert same(scan_geometry(str(path)).affine, nib.load(path).affine)

    def test_sform_and_qform_that_differ(self, tmp_path):
        path = write_header(tmp_path / "a.nii", VOLUME, turned(0.2, [10, -20, 15]) @ GRID, GRID, codes=(2, 1))
        assert "the sform is used" in self.told(path)["sform and qform"]
        found = scan_geometry(str(path))
        assert same(found.affine, turned(0.2, [10, -20, 15]) @ GRID)
        assert same(found.itk_affine, GRID)

    def test_rounding_is_not_told(self, tmp_path):
        path = write_header(tmp_path / "a.nii", VOLUME, turned(1e-4, [0.01, 0, 0]) @ GRID, GRID)
        assert self.told(path) == {}

    def test_voxel_sizes_against_the_sform(self, tmp_path):
        """MONAI's own reader would take the matrix of the qform in silence, which has no code."""
        path = write_header(tmp_path / "a.nii", VOLUME, GRID, codes=(1, 0), pixdim=[1, 1, 1])
        assert "the sform is used" in self.told(path)["sform and voxel sizes (pixdim)"]
        assert same(scan_geometry(str(path)).affine, GRID)

    def test_shear(self, tmp_path):
        path = write_header(tmp_path / "a.nii", VOLUME, sheared(15) @ GRID, codes=(1, 0), pixdim=[2, 3, 4.1411])
        assert "15.0 degrees off the right angle" in self.told(path)["shear"]
        assert same(scan_geometry(str(path)).affine, sheared(15) @ GRID)
        assert scan_geometry(str(path)).itk_affine is None

    @pytest.mark.parametrize(("code", "unit", "name"), [(1, 1e-3, "metres"), (3, 1e3, "micrometres")])
    def test_units(self, tmp_path, code, unit, name):
        path = write_header(tmp_path / "a.nii", VOLUME, np.diag([unit, unit, unit, 1]) @ GRID, xyzt_units=code)
        assert name in self.told(path)["units"]
        assert same(scan_geometry(str(path)).affine, GRID)

    def test_left_handed_axes_are_nothing_special(self, tmp_path):
        path = write_header(tmp_path / "a.nii", VOLUME, np.diag([-1, 1, 1, 1]) @ GRID)
        assert self.told(path) == {}

    def test_nifti2(self, tmp_path):
        path = write_header(tmp_path / "a.nii", VOLUME, GRID, kind=nib.Nifti2Image)
        assert self.told(path) == {}
        assert np.array_equal(read_scan(str(path))[1], VOLUME)


class TestRefused:
    """By name, with a remedy that helps."""

    @pytest.mark.parametrize(
        ("fields", "message", "remedy"),
        [
            ({"codes": (0, 0), "pixdim": [0, 3, 4]}, "voxels of 0 x 3 x 4", {"pixdim": [2, 3, 4]}),
            ({"codes": (0, 1), "pixdim": [-2, 3, 4]}, "voxels of -2 x 3 x 4", {"pixdim": [2, 3, 4]}),
            ({"codes": (9, 1)}, "sform_code 9", {"codes": (1, 1)}),
            ({"codes": (1, -2)}, "qform_code -2", {"codes": (1, 1)}),
            ({"codes": (0, 1), "quatern_b": 5}, "no rotation", {"quatern_b": 0}),
            ({"srow_x": [np.nan] * 4}, "singular or not finite", {"srow_x": GRID[0]}),
            ({"srow_x": [0, 0, 0, 1]}, "singular or not finite", {"srow_x": GRID[0]}),
            ({"pixdim": [2, 3, 4], "xyzt_units": 1}, "metres large", {"xyzt_units": 2}),
        ],
    )
    def test_header(self, tmp_path, fields, message, remedy):
        """The remedy was tried: with it the scan is usable."""
        large = np.diag([1000, 1000, 1000, 1]) @ GRID if "xyzt_units" in fields else GRID
        assert message in (check_scan(str(write_header(tmp_path / "a.nii", VOLUME, large, **fields))) or "")
        assert check_scan(str(write_header(tmp_path / "a.nii", VOLUME, GRID, **{**fields, **remedy}))) is None

    def test_complex_numbers(self, tmp_path):
        nib.save(nib.Nifti1Image((VOLUME + 1j).astype(np.complex64), GRID), tmp_path / "a.nii")
        assert "complex numbers; store their magnitude" in (check_scan(str(tmp_path / "a.nii")) or "")
        nib.save(nib.Nifti1Image(np.abs(VOLUME + 1j).astype(np.float32), GRID), tmp_path / "a.nii")
        assert check_scan(str(tmp_path / "a.nii")) is None

    @pytest.mark.parametrize("names", ["RGB", "RGBA"])
    def test_colours(self, tmp_path, names):
        colours = np.zeros(SIZE, dtype=[(name, "u1") for name in names])
        colours["R"] = VOLUME
        nib.save(nib.Nifti1Image(colours, GRID), tmp_path / "a.nii")
        assert f"holds colours ({names})" in (check_scan(str(tmp_path / "a.nii")) or "")


@FEW
@given(
    codes=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    sform=st.sampled_from([GRID, turned(0.2, [10, -20, 15]) @ GRID, sheared(15) @ GRID, np.diag([-1, 1, 1, 1]) @ GRID]),
    qform=st.sampled_from([GRID, turned(0.3) @ GRID, np.diag([1, -1, 1, 1]) @ GRID]),
    unit=st.sampled_from([0, 1, 2, 3, 4]),
    pixdim=st.none() | st.lists(numbers, min_size=3, max_size=3),
    fields=st.fixed_dictionaries(
        {},
        optional={
            "scl_slope": numbers,
            "scl_inter": numbers,
            "intent_code": st.sampled_from([0, 1002, 1007, 2001]),
            "quatern_b": numbers,
            "srow_y": st.sampled_from([[0, 0, 0, 0], [0, 1, 0, 5], [float("nan")] * 4]),
            "toffset": numbers,
        },
    ),
    more=st.sampled_from([(), (1,), (1, 1)]),
    kind=st.sampled_from([nib.Nifti1Image, nib.Nifti2Image]),
)
def test_any_header(tmp_path, codes, sform, qform, unit, pixdim, fields, more, kind):
    """
    Refused by name; or read where nibabel has it, and ITK's place is known. What is written in its place lies on it in
    both, on its own grid and on a coarser one, or ITK refuses both.
    """
    fields = fields | ({} if pixdim is None else {"pixdim": pixdim})
    volume = VOLUME.reshape(*SIZE, *more)
    path = write_header(tmp_path / "in.nii", volume, sform, qform, codes, kind, xyzt_units=unit, **fields)
    problem = check_scan(str(path))
    if problem is not None:
        assert not problem.startswith("cannot be read") or "Valid slope but invalid intercept" in problem
        return
    geometry, array = read_scan(str(path))
    assert np.isfinite(geometry.affine).all()
    raw = nib.load(path).affine
    unscaled = np.diag([1 / geometry.unit] * 3 + [1])
    assert same(unscaled @ geometry.affine, raw)
    in_itk = as_itk_reads(path)
    assert same(geometry.itk_affine, in_itk)
    assert np.array_equal(array, nib.load(path).get_fdata().reshape(SIZE))
    write_nifti(array, geometry.affine, tmp_path / "out.nii", geometry)
    assert same(nib.load(tmp_path / "out.nii").affine, raw)
    assert same(as_itk_reads(tmp_path / "out.nii"), in_itk) or kind is nib.Nifti2Image  # which ITK does not read
    step = grid((1, 1, 1), (2, 2, 2))
    step[:3, 3] = [1, 2, 3]
    write_nifti(array[::2, ::2, ::2], geometry.affine @ step, tmp_path / "coarse.nii", geometry)
    assert same(nib.load(tmp_path / "coarse.nii").affine, raw @ step)
    coarse = as_itk_reads(tmp_path / "coarse.nii")
    assert in_itk is None or coarse is None or same(coarse, in_itk @ step)
