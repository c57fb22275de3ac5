# SPDX-License-Identifier: Apache-2.0

"""Similarity of features."""

from __future__ import annotations

import torch
from scripts.matching import similarity_map


def test_similarity_is_highest_where_the_feature_came_from():
    torch.manual_seed(0)
    features = 5 + torch.randn(6, 7, 8, 9)
    similarity = similarity_map(features[:, 3, 2, 5], features)
    assert similarity.shape == (7, 8, 9)
    assert similarity.flatten().argmax() == (3 * 8 + 2) * 9 + 5
    assert torch.isclose(similarity.max(), torch.tensor(1.0), atol=1e-5)


def test_common_offset_of_all_features_does_not_count():
    """Without centring, a large offset would make every place look alike."""
    torch.manual_seed(0)
    features = torch.randn(6, 5, 5, 5)
    first, shifted = (
        similarity_map(features[:, 1, 1, 1], features),
        similarity_map(features[:, 1, 1, 1] + 100, features + 100),
    )
    assert torch.allclose(first, shifted, atol=1e-3)
    assert first.std() > 0.2
