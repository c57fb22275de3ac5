# Copyright (c) GVSL bundle contributors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Similarity of features."""

from __future__ import annotations

import torch
from scripts.features import similarity_map


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
