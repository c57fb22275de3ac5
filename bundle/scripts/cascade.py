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

"""A deformable head in stages: each one finds what the ones before it left."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from .geometry import compose, warp


class CascadeHead(nn.Module):
    """
    Deformable heads one after the other: the moving features are warped by what was found so far, the next head matches
    them once more, and the maps are composed.

    Correlation first: it needs features that agree between subjects. A convolution after it: it is not bound to the
    correlation's half size and radius.

    Args:
        stages: heads, each called with moving and fixed local features, such as
            :class:`~scripts.correlation.CorrelationHead` and :class:`~scripts.heads.DeformableHead`.
    """

    def __init__(self, stages: Sequence[nn.Module]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)

    def forward(self, moving: torch.Tensor, fixed: torch.Tensor) -> torch.Tensor:
        """
        Args:
            moving: local features of the moving image, aligned by the affine map, ``(B, C, D, H, W)``.
            fixed: local features of the fixed image, ``(B, C, D, H, W)``.

        Returns:
            ``(B, N, D, H, W)`` in voxels.
        """
        first, *others = self.stages
        field = first(moving, fixed)
        for stage in others:
            field = compose(field, stage(warp(moving, field), fixed))
        return field
