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
"""A network that tells classes of whole scans apart."""

from __future__ import annotations

import torch
from torch import nn

from .backbone import UNetBackbone
from .errors import InputError
from .transfer import TaskNetwork


class ClassificationNetwork(TaskNetwork):
    """
    The backbone's encoder, global average pooling of its f^g, and one linear layer (paper, section 4.1).

    The decoder is not used and not trained; its weights stay as they are, so that a backbone is always whole.

    Args:
        backbone: image to (f^g, f^l).
        num_classes: classes to tell apart.
        linear: train the linear layer alone, on frozen features.

    Raises:
        InputError: with fewer than two classes.
    """

    def __init__(self, backbone: UNetBackbone, num_classes: int, linear: bool = False) -> None:
        if num_classes < 2:
            raise InputError(f"a classification needs two classes or more, not {num_classes}")
        super().__init__(backbone, nn.Linear(backbone.features[-1], num_classes), linear)
        backbone.ups.requires_grad_(False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """
        Args:
            image: ``(B, C, D, H, W)``.

        Returns:
            logits ``(B, num_classes)``.
        """
        return self.head(self.backbone.encode(image)[-1].flatten(2).mean(2))
