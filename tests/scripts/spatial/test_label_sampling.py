# SPDX-License-Identifier: Apache-2.0

"""Label maps between voxels: against one interpolated map a label, against a ball that is known, against ITK."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scripts.evaluation import label_dice
from scripts.spatial import resample_labels, sample, sample_labels, voxel_grid, warp_labels

SIZE = (9, 8, 7)


def places(size=SIZE):
    return voxel_grid(size, torch.zeros(1).double())


def inside_map(position):
    last = torch.tensor(SIZE).reshape(3, 1, 1, 1) - 1
    return ((position >= 0) & (position <= last)).all(dim=0, keepdim=True)


@pytest.fixture
def label():
    return torch.randint(0, 5, (1, *SIZE), generator=torch.Generator().manual_seed(0)) ** 9  # 0, 1, 512, ... 262144


@pytest.fixture
def position():
    generator = torch.Generator().manual_seed(1)
    return places() + 1.5 * torch.randn(3, *SIZE, generator=generator, dtype=torch.float64)


def test_voxels_themselves_keep_their_labels(label):
    assert torch.equal(sample_labels(label, places()), label)
    assert sample_labels(label, places()).dtype == label.dtype


def test_label_of_the_largest_interpolated_map(label, position):
    codes = torch.unique(label)
    shares = torch.cat([sample((label == code).double()[None], position[None])[0] for code in codes])
    shares[0] += 1 - shares.sum(dim=0)  # beyond the map is background
    assert torch.equal(sample_labels(label, position), codes[shares.argmax(dim=0)][None])


def test_warped_labels_are_those_at_the_displaced_voxels(label, position):
    """Each map of a batch by its own displacement, in the displacement's place of a match."""
    labels = torch.stack([label, label.flip(1)])
    displacement = torch.stack([position - places(), torch.zeros_like(position)])
    found = warp_labels(labels, displacement)
    assert torch.equal(found[0], sample_labels(label, position.float()))
    assert torch.equal(found[1], label.flip(1))
    assert found.dtype == label.dtype


def test_beyond_the_map_is_background():
    label = torch.full((1, *SIZE), 7)
    found = sample_labels(label, places() - torch.tensor([0.4, 0, 0]).reshape(3, 1, 1, 1))
    assert (found == 7).all()
    assert (sample_labels(label, places() - torch.tensor([0.6, 0, 0]).reshape(3, 1, 1, 1))[:, 0] == 0).all()
    assert (sample_labels(label, places() + 100) == 0).all()


def test_nearer_to_a_ball_than_the_nearest_voxel():
    def ball(points):
        return ((points - 10.3).norm(dim=0, keepdim=True) < 6).float()

    fine = torch.diag(torch.tensor([0.5, 0.5, 0.5, 1.0])).double()
    label = ball(places((20, 20, 20)))
    where = (torch.eye(4), torch.zeros(3, 40, 40, 40).double(), fine)
    truth = ball(places((40, 40, 40)) / 2)[None]
    nearest = sample(label[None], places((40, 40, 40))[None] / 2, "nearest")
    linear = label_dice(resample_labels(label, *where)[None], truth)
    assert linear > label_dice(nearest, truth) + 0.01


def test_in_the_plane():
    label = torch.tensor([[[0, 3], [3, 3]]])
    position = torch.tensor([[0.2, 0.3], [0.2, 0.4]]).reshape(2, 1, 2)  # weights of 0: 0.64 and 0.42
    assert sample_labels(label, position).tolist() == [[[0, 3]]]


def test_as_itk_does(label, position):
    image = sitk.GetImageFromArray(label[0].numpy().astype(np.uint32))
    counted = inside_map(position)[0]
    points = position[:, counted].T.flip(1)  # ITK's axes are the other way round
    found = [image.EvaluateAtContinuousIndex(point.tolist(), sitk.sitkLabelLinear) for point in points]
    assert sample_labels(label, position)[0][counted].tolist() == found
