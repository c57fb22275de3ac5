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

"""Activations computed again: the same losses and gradients from less memory."""

from __future__ import annotations

import pytest
import torch
from scripts.backbone import UNetBackbone
from scripts.heads import AffineHead, DeformableHead, RestorationHead
from scripts.memory import checkpoint_activations
from scripts.networks import GVSL


@pytest.fixture
def network():
    torch.manual_seed(0)
    heads = AffineHead(8, 4), DeformableHead(4, 8), RestorationHead(4, hidden_channels=8)
    return GVSL(UNetBackbone(features=(4, 8)), *heads)


def gradients(network):
    """Loss, gradients, and the bytes of tensors kept for the backward pass."""
    network.zero_grad()
    torch.manual_seed(1)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append(t.untyped_storage().nbytes()) or t, lambda t: t
    ):
        found = network(torch.rand(1, 1, 16, 16, 16), torch.rand(1, 1, 16, 16, 16))
        loss = sum(found[name].square().mean() for name in ("warped", "local_displacement", "restored"))
    loss.backward()
    return loss.detach(), [p.grad.clone() for p in network.parameters()], sum(kept)


def test_the_same_gradients_from_less_memory(network):
    names = list(network.state_dict())
    expected, plain, much = gradients(network)
    checkpoint_activations(network)
    loss, again, little = gradients(network)
    assert torch.equal(loss, expected)
    for one, other in zip(plain, again, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
    assert little < 0.7 * much
    assert list(network.state_dict()) == names


def test_disabled(network):
    before = network.backbone.stem.forward
    checkpoint_activations(network, enabled=False)
    assert network.backbone.stem.forward == before
