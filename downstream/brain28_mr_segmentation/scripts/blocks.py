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

"""What the backbone and the heads share: activation, normalisation, initialisation."""

from __future__ import annotations

from torch import nn

LEAKY_RELU = ("leakyrelu", {"negative_slope": 0.2, "inplace": True})


def group_norm(channels: int, channels_per_group: int = 8) -> tuple[str, dict]:
    """
    MONAI's description of a GroupNorm with that many channels a group, or the next larger number that divides them.
    """
    wanted = max(1, channels // channels_per_group)
    return "group", {"num_groups": next(n for n in range(wanted, 0, -1) if channels % n == 0)}


def initialise(module: nn.Module, negative_slope: float = 0.2) -> None:
    """Kaiming-normal weights and zero biases for every convolution, in place."""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.Conv3d)):
            nn.init.kaiming_normal_(layer.weight, a=negative_slope, nonlinearity="leaky_relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
