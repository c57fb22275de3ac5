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

"""Memory for time: activations that are computed again in the backward pass."""

from __future__ import annotations

from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint


def checkpoint_activations(network: nn.Module, enabled: bool = True) -> None:
    """
    Keep only what goes into each level of a backbone; what happens within is computed again when its gradient is
    needed. Losses and gradients stay the same; a step takes longer.

    Args:
        network: with a ``backbone`` that has ``stem``, ``downs`` and ``ups`` (:class:`~scripts.backbone.UNetBackbone`).
        enabled: False leaves the network as it is.
    """
    if enabled:
        backbone: nn.Module = network.backbone  # type: ignore[assignment]
        for level in [backbone.stem, *backbone.downs, *backbone.ups]:  # type: ignore[misc]
            level.forward = partial(checkpoint, level.forward, use_reentrant=False)
