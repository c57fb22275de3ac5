# SPDX-License-Identifier: Apache-2.0

"""What a cohort's scans are like, and the settings that are planned from it."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scripts.data import Fingerprint, GridPlan, describe_misfit, size_for
from scripts.errors import InputError
from support import write_itk

MICE = 0.14


def write(folder: Path, count: int, shape: tuple[int, ...], spacing: tuple[float, ...], scale=0.0, shift=0.0) -> list:
    """Scans of noise (nothing where it has no scale), all alike but for their voxels' values."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        volume = np.zeros(shape, np.float32)
        if scale:
            volume = (scale * np.random.default_rng(number).normal(size=shape) + shift).astype(np.float32)
        nib.save(nib.Nifti1Image(volume, np.diag([*spacing, 1.0])), folder / f"{number}.nii.gz")
    return [{"image": str(path), "subject": path.name} for path in sorted(folder.glob("*.nii.gz"))]


def test_sizes_are_told_along_the_axes_of_the_orientation(tmp_path):
    affine = np.array([[0, 0, 2.0, 5], [-1.0, 0, 0, 3], [0, 3.0, 0, 1], [0, 0, 0, 1]])  # P, S, R
    nib.save(nib.Nifti1Image(np.zeros((10, 20, 30), np.float32), affine), tmp_path / "a.nii.gz")
    fingerprint = Fingerprint([{"image": str(tmp_path / "a.nii.gz"), "zoom": 2.0}])
    assert fingerprint.geometry[0].tolist() == [[30, 10, 20]]
    assert fingerprint.spacings.tolist() == [[4.0, 2.0, 6.0]]
    assert fingerprint.extents.tolist() == [[120.0, 20.0, 120.0]]
    turned = Fingerprint([{"image": str(tmp_path / "a.nii.gz")}], orientation="SRA")
    assert turned.geometry[0].tolist() == [[20, 30, 10]]
    with pytest.raises(InputError, match="one letter each of"):
        Fingerprint([{"image": str(tmp_path / "a.nii.gz")}], orientation="XYZ")


def test_other_formats_are_read(tmp_path):
    write_itk(tmp_path / "a.nrrd", np.arange(480, dtype=np.float32).reshape(10, 8, 6))
    fingerprint = Fingerprint([{"image": str(tmp_path / "a.nrrd")}])
    assert fingerprint.geometry[0].tolist() == [[10, 8, 6]]
    assert fingerprint.intensities.tolist() == [pytest.approx([0, 2.395, 239.5, 476.605, 479])]


@pytest.mark.parametrize(
    ("pixdim", "size", "said"),
    [
        ([1.5] * 3, [96] * 3, ["fill 0.4% of the crop (144 x 144 x 144 mm)", "10.7 times coarser along each axis"]),
        ([0.14] * 3, [64] * 3, ["6.8% of the scans (22 x 22 x 22 mm) lies in the crop (8.96 x 8.96 x 8.96 mm)"]),
        ([0.25] * 3, [88] * 3, []),
    ],
)
def test_a_grid_that_does_not_fit_is_told(tmp_path, pixdim, size, said):
    """51 scans of 22 mm were once sampled at 1.5 mm: a blob of 15 voxels in padding, without a word."""
    lines = describe_misfit(Fingerprint(write(tmp_path, 2, (157, 157, 157), (MICE,) * 3)), pixdim, size)
    assert len(lines) == len(said)
    for line, part in zip(lines, said, strict=True):
        assert part in line


def test_misfits_are_told_by_cohort(tmp_path):
    large = [{**scan, "cohort": "a"} for scan in write(tmp_path / "a", 3, (24, 24, 24), (4.0,) * 3)]
    small = [{**scan, "cohort": "b", "zoom": 1.0} for scan in write(tmp_path / "b", 3, (24, 24, 24), (1.0,) * 3)]
    (line,) = describe_misfit(Fingerprint(large + small), [2.0] * 3, [48] * 3)
    assert line.startswith("the scans of b (24 x 24 x 24 mm) fill 1.6% of the crop")
    assert describe_misfit(Fingerprint(large + [{**scan, "zoom": 4.0} for scan in small]), [2.0] * 3, [48] * 3) == []


def test_the_widest_crop_counts_where_voxel_sizes_are_drawn(tmp_path):
    """Heads of 240 mm in 96 mm of the grid: with zoom 2 the crop is 48 mm, at its widest 240 mm."""
    scans = [{**scan, "zoom": 2.0} for scan in write(tmp_path, 2, (60, 60, 60), (4.0,) * 3)]
    cut = describe_misfit(Fingerprint(scans), [4.0] * 3, [24] * 3)
    assert cut == ["0.8% of the scans (240 x 240 x 240 mm) lies in the crop (48 x 48 x 48 mm), the rest is cut off"]
    assert describe_misfit(Fingerprint([{**scan, "zoom_out": 5.0} for scan in scans]), [4.0] * 3, [24] * 3) == []


class TestPlan:
    def test_tiny_animals(self, tmp_path, capsys):
        plan = GridPlan(Fingerprint(write(tmp_path, 3, (157, 157, 157), (MICE,) * 3)))
        features = plan.features()
        pixdim = plan.pixdim(features)
        size = plan.spatial_size(pixdim, features)
        assert features == [16, 32, 64, 128]
        assert size == [96, 96, 96]
        assert all(21.9 / 96 <= voxel < 0.24 for voxel in pixdim)
        assert describe_misfit(plan.fingerprint, pixdim, size) == []
        assert "3 scans, median 0.14 x 0.14 x 0.14 mm, coarsened until the median scan is at most 884,736 voxels" in (
            capsys.readouterr().out
        )

    def test_more_memory_samples_finer_and_then_takes_more_pairs(self, tmp_path):
        scans = write(tmp_path, 2, (157, 157, 157), (MICE,) * 3)
        found = {}
        for memory in (2, 8, 80):
            plan = GridPlan(Fingerprint(scans), memory=memory, show=False)
            features = plan.features()
            pixdim = plan.pixdim(features)
            size = plan.spatial_size(pixdim, features)
            found[memory] = (pixdim[0], features[0], plan.batch_size(size, features))
            step = plan.batch_size(size, features) * np.prod(size) * (200 + 170 * features[0])
            assert step < 1e9 * memory
        assert found[2][0] > found[8][0] > found[80][0] == MICE
        assert [entry[1:] for entry in found.values()] == [(16, 1), (16, 1), (32, 2)]

    def test_what_is_given_by_hand_counts_for_the_rest(self, tmp_path):
        plan = GridPlan(Fingerprint(write(tmp_path, 2, (64, 64, 32), (1.0, 1.0, 2.0))), show=False)
        assert plan.pixdim([16]) == [1.0, 1.0, 2.0]
        assert plan.spatial_size([1.0, 1.0, 2.0], [16]) == [64, 64, 32]
        assert plan.spatial_size([2.0, 2.0, 4.0], [16]) == [32, 32, 16]
        assert plan.spatial_size([0.25, 0.25, 0.25], [16]) == [96, 96, 96]  # cropped, which is told

    def test_thick_slices_stay_thick(self, tmp_path):
        plan = GridPlan(Fingerprint(write(tmp_path, 2, (256, 256, 16), (0.8, 0.8, 8.0))), show=False)
        pixdim = plan.pixdim([16])
        assert pixdim[0] == pixdim[1] < pixdim[2] == 8.0
        assert np.prod(plan.spatial_size(pixdim, [16])) <= 96**3

    @pytest.mark.parametrize(
        ("scale", "shift", "intensity"), [(300, -300, "window"), (30, 1000, "percentiles"), (3000, 0, "percentiles")]
    )
    def test_a_ct_is_known_by_its_values(self, tmp_path, scale, shift, intensity, capsys):
        scans = write(tmp_path, 2, (16, 16, 16), (1.0,) * 3, scale, shift)
        plan = GridPlan(Fingerprint(scans))
        assert plan.intensity() == intensity
        low, high = plan.window("window")
        assert -1024 <= low < high <= 3072
        assert "of 2 scans read have the values of a CT" in capsys.readouterr().out

    @pytest.mark.parametrize("padding", [-2000, -5000, -32768, 30000])
    def test_padding_and_a_few_hot_voxels_do_not_count(self, tmp_path, padding):
        """Before, a CT padded with -32768, or with one voxel of metal, was planned as MR."""
        windows = []
        for name, fill in (("plain", None), ("padded", padding)):
            scans = write(tmp_path / name, 2, (20, 20, 20), (1.0,) * 3, 300, -300)
            for scan in scans:
                volume = nib.load(scan["image"]).get_fdata(dtype=np.float32)
                volume[9, 9, 9] = 1e6 if padding < 0 else 100
                if fill is not None:
                    volume[:, :4] = fill
                nib.save(nib.Nifti1Image(volume, np.eye(4)), scan["image"])
            plan = GridPlan(Fingerprint(scans))
            assert plan.intensity() == "window"
            windows.append(plan.window("window"))
        assert np.abs(np.subtract(*windows)).max() <= 20

    def test_the_budget_is_checked(self, tmp_path):
        with pytest.raises(ValueError, match="memory must be a number of 1 or more, not 'much'"):
            GridPlan(Fingerprint(write(tmp_path, 1, (8, 8, 8), (1.0,) * 3)), memory="much")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("extent", "pixdim", "expected"),
    [
        ([36, 50, 36], [1, 1, 1], [40, 56, 40]),
        ([3, 16, 16.002], [1, 1, 1], [16, 16, 24]),
        ([240, 240, 180], [2, 2, 2], [96, 96, 96]),
        ([320, 320, 72], [1.25, 1.25, 8], [232, 232, 16]),
    ],
)
def test_sizes_are_multiples_of_eight_and_thin_stacks_keep_their_plane(extent, pixdim, expected):
    assert size_for(extent, pixdim, 96**3) == expected


class TestTraining:
    def test_a_planned_run_writes_what_it_chose(self, tmp_path, workflow, capsys):
        write(tmp_path / "data", 4, (40, 40, 40), (MICE,) * 3, scale=1)
        planned = {"pixdim": None, "spatial_size": None, "features": None}
        made = workflow(tmp_path / "data", tmp_path / "out", overlays=("plan",), epochs=1, epoch_length=1)
        for name in planned:  # without the tiny settings of the tests
            made.parser[name] = json.loads(Path("bundle/configs/plan.json").read_text())[name]
        made.parser["features"] = [4, 8]
        made.initialize()
        made.run()
        settings = json.loads((tmp_path / "out" / "settings.json").read_text())
        assert settings["pixdim"] == [MICE] * 3
        assert settings["spatial_size"] == [40, 40, 40]
        assert settings["features"] == [4, 8]  # given by hand
        assert settings["intensity"] == "percentiles"
        shown = capsys.readouterr().out
        assert shown.count("planned pixdim") == 1
        assert "planned features" not in shown
        assert "note:" not in shown

    def test_a_grid_that_does_not_fit_is_told_before_training(self, tmp_path, workflow, capsys):
        write(tmp_path / "data", 4, (40, 40, 40), (MICE,) * 3, scale=1)
        made = workflow(tmp_path / "data", tmp_path / "out", epochs=1, epoch_length=1)
        made.initialize()
        made.run()
        assert "note: the scans of" in (shown := capsys.readouterr().out)
        assert "fill 1.3% of the crop (24 x 24 x 24 mm), the rest is padding; --pixdim and" in shown
