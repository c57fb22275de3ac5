# SPDX-License-Identifier: Apache-2.0

"""Activations computed again: the same losses and gradients from less memory, no convolution twice."""

from __future__ import annotations

import pytest
import torch
from scripts.losses import GVSLLoss
from scripts.networks import (
    GVSL,
    AffineHead,
    CascadeHead,
    CorrelationHead,
    DeformableHead,
    RestorationHead,
    UNetBackbone,
    ZMatchingHead,
    checkpoint_activations,
)
from torch.utils._python_dispatch import TorchDispatchMode


@pytest.fixture(params=["convolution", "correlation", "cascade"])
def network(request):
    torch.manual_seed(0)
    correlation, convolution = CorrelationHead(4, 4, radius=2), DeformableHead(4, 8)
    local = {"convolution": convolution, "correlation": correlation, "cascade": CascadeHead([correlation, convolution])}
    matching = ZMatchingHead(AffineHead(8, 4), local[request.param])
    return GVSL(UNetBackbone(features=(4, 8)), matching, RestorationHead(4, hidden_channels=8))


class Convolutions(TorchDispatchMode):
    """Counts them."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten.convolution.default
        return function(*args, **(kwargs or {}))


def step(network, criterion):
    """Loss, gradients, bytes that are kept for the backward pass, convolutions forwards and backwards."""
    network.zero_grad()
    torch.manual_seed(1)
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    fixed, moving = torch.rand(2, 1, 1, 16, 16, 16)
    with Convolutions() as convolutions:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = criterion(network(fixed, moving), torch.cat([fixed, moving], dim=1))["loss"]
        loss.backward()
    return loss.detach(), [p.grad.clone() for p in network.parameters()], sum(kept.values()), convolutions.count


def test_the_same_gradients_from_less_memory(network):
    loss = GVSLLoss()
    names = list(network.state_dict())
    expected, plain, much, convolutions = step(network, loss)
    checkpoint_activations(network)
    again, gradients, little, repeated = step(network, loss)
    assert torch.equal(again, expected)
    assert all(torch.equal(one, other) for one, other in zip(plain, gradients, strict=True))
    assert little < 0.8 * much
    assert repeated == convolutions
    assert list(network.state_dict()) == names


def test_disabled(network):
    before = network.backbone.stem.forward
    checkpoint_activations(network, enabled=False)
    assert network.backbone.stem.forward == before
