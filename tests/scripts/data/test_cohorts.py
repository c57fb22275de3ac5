# SPDX-License-Identifier: Apache-2.0

"""Several folders at once: cohorts are never mixed, each has its voxel size, subjects are held back of each."""

from __future__ import annotations

from importlib import import_module

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from scripts.data import PairDataset, find_cohorts, split_subjects
from scripts.errors import InputError
from scripts.transforms import Zoomd


@pytest.fixture(scope="module")
def two(tmp_path_factory, make_cohort):
    """Two folders whose scans have the same names."""
    folder = tmp_path_factory.mktemp("cohorts")
    return [str(make_cohort(folder / "heads", subjects=5)), str(make_cohort(folder / "hearts", subjects=6, first=5))]


class TestFindCohorts:
    def test_one_folder_is_one_cohort(self, two):
        scans = find_cohorts(two[0])
        assert {(scan["cohort"], scan["zoom"]) for scan in scans} == {(two[0], 1.0)}
        assert len(scans) == 5

    def test_each_folder_has_its_key_and_zoom(self, two):
        scans = find_cohorts(two, ["site", r"subject_(\d)"], [1, 4])
        assert [(scan["cohort"], scan["zoom"]) for scan in scans] == [(two[0], 1.0)] * 5 + [(two[1], 4.0)] * 6
        assert [scan["subject"] for scan in scans] == [*"ABABA", *"012345"]

    def test_one_value_serves_all(self, two):
        assert {(scan["subject"] in "AB", scan["zoom"]) for scan in find_cohorts(two, "site", 2)} == {(True, 2.0)}

    def test_what_was_found_good_is_remembered_of_each(self, two, tmp_path, monkeypatch):
        """The second start reads no scan again, though both folders share the record."""
        module, read = import_module("scripts.data.find_scans"), []
        check = module.inspect_scan
        monkeypatch.setattr(module, "inspect_scan", lambda *args, **more: (read.append(args), check(*args, **more))[1])
        found = find_cohorts(two, cache_dir=str(tmp_path))
        assert len(read) == len(found)
        assert len(find_cohorts(two, cache_dir=str(tmp_path))) == len(read)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"dataset_dir": []}, "dataset_dir is an empty list"),
            ({"dataset_dir": [7, None]}, "dataset_dir 7, one of 2, does not exist"),
            ({"zoom": [1, 2, 3]}, r"zoom has 3 values for the 2 folder\(s\)"),
            ({"subject_key": ["site"]}, r"subject_key has 1 values for the 2 folder\(s\)"),
            ({"zoom": 0}, "zoom must be a number of 0.01 or more, not 0"),
            ({"zoom": [1, "fine"]}, "zoom must be a number of 0.01 or more, not 'fine'"),
        ],
    )
    def test_refusals(self, two, arguments, message):
        with pytest.raises(InputError, match=message):
            find_cohorts(**{"dataset_dir": two, **arguments})

    def test_a_folder_given_twice_is_refused(self, two):
        with pytest.raises(InputError, match="heads/ twice"):
            find_cohorts([two[0], two[0] + "/"])

    def test_a_missing_folder_is_named(self, two):
        with pytest.raises(InputError, match=r"nowhere, one of 2, does not exist.*--data_dir"):
            find_cohorts([two[0], "nowhere"])


class TestSplit:
    @given(st.lists(st.integers(0, 12), min_size=2, max_size=30), st.floats(0.01, 0.99), st.integers(0, 99))
    def test_split_is_by_subject(self, subjects, fraction, seed):
        """Nothing is lost; both sides can be paired; no subject is on both sides unless there are too few."""
        scans = [{"image": str(i), "subject": str(subject)} for i, subject in enumerate(subjects)]
        training, held = split_subjects(scans, fraction, seed)
        assert split_subjects(scans, fraction, seed) == (training, held)
        if len(set(subjects)) < 4:
            assert training == held == scans
            return
        sides = [{scan["subject"] for scan in side} for side in (training, held)]
        assert min(map(len, sides)) >= 2
        assert not sides[0] & sides[1]
        assert sorted(scan["image"] for scan in training + held) == sorted(scan["image"] for scan in scans)

    @pytest.mark.parametrize("fraction", [0, 1, 1.5, -0.1, float("nan")])
    def test_fraction_must_be_one(self, fraction):
        with pytest.raises(InputError, match="validation_fraction"):
            split_subjects([{"subject": "a"}, {"subject": "b"}], fraction)

    def test_every_cohort_is_split_as_if_it_were_alone(self, two):
        """So a model of several cohorts has seen no more of one than a model of that one alone."""
        both = split_subjects(find_cohorts(two), 0.4, 3)
        alone = [split_subjects(find_cohorts(folder), 0.4, 3) for folder in two]
        assert both == tuple(one + other for one, other in zip(*alone, strict=True))

    def test_a_small_cohort_is_named(self, capsys):
        scans = [{"subject": str(number), "cohort": cohort} for number, cohort in enumerate("aaaaabbb")]
        training, held = split_subjects(scans, 0.4)
        assert [scan["cohort"] for scan in training] == [*"aaabbb"]
        assert [scan["cohort"] for scan in held] == [*"aabbb"]
        assert "3 subjects in b are too few" in capsys.readouterr().out


class TestPairsOfCohorts:
    @settings(max_examples=25, deadline=None)
    @given(st.lists(st.integers(2, 6), min_size=1, max_size=4), st.integers(0, 2**31))
    def test_pairs_never_mix_cohorts(self, counts, seed):
        """Though subjects have the same names in all; a large cohort is drawn no more often than a small one."""
        scans = [
            {"image": torch.zeros(1), "subject": str(i), "cohort": cohort}
            for cohort, count in enumerate(counts)
            for i in range(count)
        ]
        pairs = PairDataset(scans, seed=seed)
        drawn = [[scans[i] for i in pairs.indices(number)[:2]] for number in range(400)]
        assert all(fixed["cohort"] == moving["cohort"] for fixed, moving in drawn)
        assert all(fixed["subject"] != moving["subject"] for fixed, moving in drawn)
        shares = np.bincount([fixed["cohort"] for fixed, _ in drawn]) / len(drawn)
        assert np.abs(shares - 1 / len(counts)).max() < 0.15

    def test_a_cohort_of_one_subject_is_refused(self):
        scans = [{"image": torch.zeros(1), "subject": s, "cohort": c} for s, c in ("1a", "2a", "1b", "1b")]
        with pytest.raises(InputError, match="two or more subjects, there are 1 in b"):
            PairDataset(scans)

    def test_one_cohort_gives_the_pairs_it_gave_without_a_name(self):
        bare = [{"image": torch.zeros(1), "subject": s} for s in "abcde"]
        named = [{**scan, "cohort": "x"} for scan in bare]
        one, other = PairDataset(bare, seed=7), PairDataset(named, seed=7)
        assert [one.indices(n) for n in range(50)] == [other.indices(n) for n in range(50)]


class TestZoom:
    def test_voxels_are_taken_for_larger_along_every_axis(self):
        affine = torch.tensor([[0, -2, 0, 5], [1.5, 0, 0, 6], [0, 0, 3, 7], [0, 0, 0, 1]], dtype=torch.float64)
        image = MetaTensor(torch.rand(1, 4, 5, 6), affine=affine)
        found = Zoomd("image")({"image": image, "zoom": 4.0})["image"]
        assert torch.equal(found.as_tensor(), image.as_tensor())
        assert torch.equal(found.affine[:3, :3], 4 * affine[:3, :3])
        assert torch.equal(found.affine[:, 3], affine[:, 3])
        assert torch.equal(image.affine, affine)  # the one given stays as it is

    def test_without_a_factor_nothing_changes(self):
        image = MetaTensor(torch.rand(1, 4, 5, 6))
        assert Zoomd("image")({"image": image})["image"] is image

    def test_a_zoomed_scan_is_sampled_that_many_times_finer(self, tmp_path, anatomy, preprocessing):
        """A scan at 1 mm with zoom 1 fills the grid as the same scan, written at a quarter of the size, with zoom 4."""
        volume = anatomy(0)
        found = []
        for zoom in (1, 4):
            path = tmp_path / f"{zoom}.nii.gz"
            nib.save(nib.Nifti1Image(volume, np.diag([1 / zoom] * 3 + [1])), path)
            found.append(np.asarray(preprocessing()({"image": str(path), "zoom": float(zoom)})["image"]))
        assert np.allclose(*found, atol=1e-5)


def test_training_on_two_cohorts(two, tmp_path, pretrain):
    """Both are learned from and measured on; the run is the same with the folders' order and zoom kept."""
    rows = pretrain(two, tmp_path / "a", epochs=1, epoch_length=4, zoom=[1, 2], validation_fraction=0.4)
    again = pretrain(two, tmp_path / "b", epochs=1, epoch_length=4, zoom=[1, 2], validation_fraction=0.4)
    unzoomed = pretrain(two, tmp_path / "c", epochs=1, epoch_length=4, zoom=1.0, validation_fraction=0.4)
    assert rows == again
    assert rows[0]["ncc_before"] != unzoomed[0]["ncc_before"]
