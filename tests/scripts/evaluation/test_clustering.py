# SPDX-License-Identifier: Apache-2.0

"""Tests of the clustering measures and pictures on made-up features."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scripts.evaluation import (
    clustering_measures,
    collapse_measure,
    embedding,
    neighbour_purity,
    principal_colours,
    sample_features,
)

SUBJECTS = ("a", "b", "c")


def clusters(separation: float, structures: int = 4, each: int = 30) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Features and codes of three subjects: a centre per structure, apart by ``separation``, and unit noise."""
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(1, structures + 1) * 100, each)
    centres = separation * np.eye(structures, 8)[np.arange(structures).repeat(each)]
    return [centres + rng.normal(size=centres.shape) for _ in SUBJECTS], [codes] * len(SUBJECTS)


def test_separable_structures_score_high_and_inseparable_ones_at_chance() -> None:
    apart, mixed = clustering_measures(*clusters(20), SUBJECTS), clustering_measures(*clusters(0), SUBJECTS)
    assert apart["silhouette"] > 0.8
    assert apart["neighbour_purity"] > 0.99
    assert abs(mixed["silhouette"]) < 0.1
    assert mixed["neighbour_purity"] == pytest.approx(1 / 4, abs=0.06)


def test_measures_do_not_depend_on_the_length_of_features() -> None:
    features, codes = clusters(5)
    scaled = clustering_measures([features[0], 10 * features[1], features[2]], codes, SUBJECTS)
    assert scaled == pytest.approx(clustering_measures(features, codes, SUBJECTS), abs=1e-6)


def test_purity_ignores_the_own_subject() -> None:
    """Each subject's structures are apart, but swapped between the two subjects: the own subject would say 1."""
    one, other = np.zeros((10, 2)), np.ones((10, 2))
    features = np.concatenate([one, other, other, one])
    codes, subjects = np.tile(np.repeat([1, 2], 10), 2), np.repeat(["a", "b"], 20)
    assert neighbour_purity(features, codes, subjects) == 0


def test_purity_weighs_structures_alike() -> None:
    """A large structure that is right and a small one that is wrong give a half."""
    codes, subjects = np.array([1] * 90 + [2] * 10 + [1] * 100), np.repeat(["a", "b"], 100)
    features = np.zeros((200, 1))
    assert neighbour_purity(features, codes, subjects) == pytest.approx(0.5)


@pytest.mark.parametrize(("codes", "subjects"), [([1, 1], "ab"), ([1, 2], "aa")])
def test_measures_need_two_structures_and_two_subjects(codes: list[int], subjects: str) -> None:
    features = [np.eye(3), np.eye(3)]
    assert clustering_measures(features, [np.full(3, code) for code in codes], list(subjects)) == {}


def test_sampled_features_are_those_of_their_voxels() -> None:
    label = torch.zeros(4, 4, 4)
    label[0], label[1, 0, :2] = 7, 9
    features = torch.stack([label, torch.arange(64.0).reshape(4, 4, 4)])
    values, codes = sample_features(features, label, 5, np.random.default_rng(0))
    assert sorted(codes) == [7] * 5 + [9] * 2
    np.testing.assert_array_equal(values[:, 0], codes)
    assert len(np.unique(values[:, 1])) == 7


def test_a_scan_without_structures_gives_no_features() -> None:
    values, codes = sample_features(torch.rand(3, 4, 4, 4), torch.zeros(4, 4, 4), 5, np.random.default_rng(0))
    assert values.shape == (0, 3)
    assert codes.shape == (0,)


@pytest.mark.parametrize(("scans", "each"), [(1, 6), (3, 40)])
def test_embedding_has_two_coordinates_for_every_feature(scans: int, each: int) -> None:
    rng = np.random.default_rng(0)
    features = [rng.normal(size=(each, 8)) for _ in range(scans)]
    points = embedding(features)
    assert points.shape == (scans * each, 2)
    assert np.isfinite(points).all()
    np.testing.assert_array_equal(points, embedding(features))


def test_embedding_keeps_structures_apart() -> None:
    features, codes = clusters(20)
    points = embedding(features)
    assert neighbour_purity(points, np.concatenate(codes), np.repeat(SUBJECTS, len(codes[0]))) > 0.95


def test_same_features_have_the_same_colour_in_every_subject() -> None:
    rng = np.random.default_rng(0)
    anatomy = rng.integers(0, 5, size=(2, 6, 5, 4))
    table = rng.normal(size=(5, 8))
    first, second = principal_colours([table[scan].transpose(3, 0, 1, 2) for scan in anatomy])
    assert first.shape == second.shape == (6, 5, 4, 3)
    colours = [
        np.unique(np.concatenate([first[a == k], second[b == k]]), axis=0) for a, b in [anatomy] for k in range(5)
    ]
    assert all(np.ptp(shades, axis=0).max() < 1e-6 for shades in colours)
    assert len({tuple(shades[0].round(3)) for shades in colours}) == 5


def test_colours_stay_within_range_with_few_or_constant_channels() -> None:
    for maps in ([np.ones((4, 3, 3, 3))] * 2, [np.random.default_rng(0).normal(size=(2, 3, 3, 3))]):
        for colours in principal_colours(maps):
            assert colours.shape == (3, 3, 3, 3)
            assert colours.min() >= 0
            assert colours.max() <= 1


def test_collapse_tells_one_direction_from_all():
    rng = np.random.default_rng(0)
    spread, line = rng.normal(size=(400, 6)), rng.normal(size=(400, 1)) * np.ones((1, 6))
    assert collapse_measure([spread[:200], spread[200:]])["embedding_collapse"] < 0.02
    assert collapse_measure([line])["embedding_collapse"] == pytest.approx(1 - 1 / 6, abs=1e-3)
    assert collapse_measure([spread[:1]]) == collapse_measure([]) == {}
