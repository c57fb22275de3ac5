# SPDX-License-Identifier: Apache-2.0

"""The lungs are found whatever surrounds them, and cut out without moving a voxel."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch
from lookalikes import chest
from monai.data import MetaTensor
from phantoms.subject import make_subject
from scripts.errors import InputError
from scripts.preparation import ExtractLungs

AFFINE = np.array([[-8.0, 0, 0, 160], [0, -8, 0, 120], [0, 0, 9, -500], [0, 0, 0, 1]])


def scan(volume, affine=AFFINE):
    return MetaTensor(torch.as_tensor(volume.astype(np.int16))[None], affine=torch.as_tensor(affine))


def truth(volume):
    """Healthy lung in a chest of tests.lookalikes: neither the air around nor in the windpipe."""
    return (volume > -930) & (volume < -770)


@pytest.fixture
def volume():
    return chest(np.random.default_rng(1))


def found(mask, wanted):
    return (mask & wanted).sum() / wanted.sum()


class TestMask:
    def test_lungs_and_nothing_around(self, volume):
        lungs = truth(volume)
        mask = ExtractLungs().mask(scan(volume))
        assert found(mask, lungs) > 0.999
        assert mask.sum() < 1.1 * lungs.sum()
        assert not mask[:, -6:].any()  # table, and the air around it
        assert not mask[:, :, -3:].any()  # the windpipe above the lungs

    @pytest.mark.parametrize("radius", [8, 12])
    def test_a_dense_spot_inside_a_lung_belongs_to_it(self, volume, radius):
        grid = np.stack(np.meshgrid(*map(np.arange, volume.shape), indexing="ij"), axis=-1)
        spot = np.linalg.norm((grid - [12, 15, 16]) * [8, 8, 9], axis=-1) < radius
        volume[spot] = 60
        assert ExtractLungs().mask(scan(volume))[spot].all()

    @pytest.mark.parametrize("order", [(2, 0, 1), (1, 2, 0)])
    def test_any_orientation(self, volume, order):
        """Axes stored in another order and direction give the same lungs."""
        expected = ExtractLungs().mask(scan(volume))
        turned = volume[::-1].transpose(order)
        flipped = AFFINE @ np.diag([-1.0, 1, 1, 1])
        flipped[:3, 3] += AFFINE[:3, 0] * (volume.shape[0] - 1)
        mask = ExtractLungs().mask(scan(turned, flipped[:, [*order, 3]]))
        assert np.array_equal(mask, expected[::-1].transpose(order))

    def test_a_windpipe_open_to_the_air_around(self, volume):
        lungs = truth(volume)
        volume[:, :, -3:] = -1000
        lungs[:, :, -3:] = False
        mask = ExtractLungs().mask(scan(volume))
        assert found(mask, lungs) > 0.999
        assert mask.sum() < 1.1 * lungs.sum()

    def test_air_between_raised_arms_is_not_taken_for_lung(self, volume):
        lungs = truth(volume)
        volume[2:-2, 1:3, 26:] = 40  # a bow of arms over the chest, closed in each cut, open upwards
        volume[[2, 3, -4, -3], 1:16, 26:] = 40
        volume[:, :, -1] = -1000
        volume[:, 0] = -1000
        mask = ExtractLungs().mask(scan(volume))
        assert found(mask, lungs) > 0.99
        assert mask.sum() < 1.1 * lungs.sum()

    def test_a_hollow_table_larger_than_a_lung(self, volume):
        lungs = truth(volume)
        volume = np.pad(volume, ((2, 2), (0, 14), (2, 2)), constant_values=-1000)
        lungs = np.pad(lungs, ((2, 2), (0, 14), (2, 2)))
        volume[3:-3, 34:45, 1:-1] = -100
        volume[4:-4, 35:44, 2:-2] = -995
        mask = ExtractLungs().mask(scan(volume))
        assert found(mask, lungs) > 0.999
        assert not mask[:, 33:].any()

    def test_separate_lungs_are_both_found_and_bowel_gas_is_not(self, volume):
        """Windpipe blocked; a bubble in the belly."""
        volume[17:23, 10:22] = 40
        lungs = truth(volume)
        volume[18:21, 8:11, 1:3] = -1000
        mask = ExtractLungs().mask(scan(volume))
        assert found(mask[:20], lungs[:20]) > 0.99
        assert found(mask[20:], lungs[20:]) > 0.99
        assert not mask[18:21, 8:11, 1:3].any()

    def test_a_fine_grid_is_searched_by_every_second_voxel(self, volume):
        """The same chest at a twelfth of the size: lungs of millilitres, on a grid of 0.7 mm."""
        lungs = truth(volume)
        small = AFFINE @ np.diag([1 / 12, 1 / 12, 1 / 12, 1])
        mask = ExtractLungs(min_volume=0.2, closing=0.7).mask(scan(volume, small))
        assert mask.shape == volume.shape
        assert found(mask, lungs) > 0.9
        assert mask.sum() < 1.3 * lungs.sum()

    def test_phantom(self):
        """A chest with ribs, vessels and stomach gas: both lungs, of a plausible size, and no bone."""
        image = make_subject(0, 0, 6.0)[0]
        volume = np.asarray(image.dataobj)
        mask = ExtractLungs().mask(scan(volume, image.affine))
        litres = mask.sum() * abs(np.linalg.det(image.affine)) / 1e6
        assert 1.5 < litres < 5
        assert (volume[mask] > 250).mean() < 0.02
        assert volume[mask].mean() < -600


class TestStep:
    def test_nothing_moves_and_the_rest_is_air(self, volume):
        image = scan(volume)
        step = ExtractLungs(margin=9.0)
        mask = step.mask(image)
        label = scan(mask.astype(np.int16) * 3)
        box, cut = step(image, label)
        assert box.dtype == torch.int16
        assert torch.equal(image, scan(volume))  # the original is left alone
        assert box.shape[1:] < image.shape[1:]
        inside = np.asarray(cut[0]) == 3
        assert inside.sum() == mask.sum()
        assert (np.asarray(box[0])[~inside] == -1024).all()
        old = nib.affines.apply_affine(AFFINE, np.argwhere(mask))
        new = nib.affines.apply_affine(np.asarray(box.affine), np.argwhere(inside))
        assert np.allclose(old, new)
        assert np.array_equal(np.asarray(box[0])[inside], volume[mask].astype(np.int16))
        assert np.argwhere(inside).min(axis=0).tolist() == [2, 2, 1]  # 9 mm are two voxels of 8 mm, one of 9 mm

    @pytest.mark.parametrize(
        "change",
        [
            lambda v: np.where(ExtractLungs().mask(scan(v)), 40, v),  # as in the belly
            lambda v: v + 1024,  # not Hounsfield units
            lambda v: np.full_like(v, -1000),
            lambda v: np.full_like(v, 40),
        ],
    )
    def test_a_scan_without_lungs_is_refused(self, volume, change):
        with pytest.raises(InputError, match=r"shows no lungs: [0-9]+ ml"):
            ExtractLungs()(scan(change(volume)), None)

    def test_too_little_lung_is_refused(self, volume):
        with pytest.raises(InputError, match="9000 or more are needed"):
            ExtractLungs(min_volume=9000)(scan(volume), None)

    @pytest.mark.parametrize(
        "settings", [{"closing": -1}, {"margin": "10"}, {"min_volume": None}, {"threshold": "low"}, {"air": [0]}]
    )
    def test_settings_that_are_no_numbers(self, settings):
        with pytest.raises(InputError, match=next(iter(settings))):
            ExtractLungs(**settings)
