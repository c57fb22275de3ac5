# SPDX-License-Identifier: Apache-2.0

"""Redundancy of features: 0 for channels that say different things, 1 for copies; what a step of it does."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scripts.losses import redundancy


def test_copies_are_wholly_redundant():
    channel = torch.rand(2, 1, 6, 5, 4)
    copies = torch.cat([channel, 3 * channel + 1, -0.5 * channel], dim=1)
    torch.testing.assert_close(redundancy(copies), torch.ones(2), rtol=1e-3, atol=0)


def test_orthogonal_channels_are_not():
    signs = torch.tensor([[1.0, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]])
    assert redundancy(signs.reshape(1, 3, 4, 1, 1)).item() == pytest.approx(0, abs=1e-12)


def test_two_of_three_alike():
    """One pair of three is correlated by 1, both ways: 2 of 6 entries."""
    signs = torch.tensor([[1.0, 1, -1, -1], [1, -1, 1, -1], [-1, 1, -1, 1]])
    assert redundancy(signs.reshape(1, 3, 2, 2)).item() == pytest.approx(1 / 3, rel=1e-3)


@pytest.mark.parametrize("features", [torch.zeros(1, 4, 3, 3, 3), torch.rand(1, 1, 3, 3, 3)])
def test_nothing_to_compare(features):
    features.requires_grad_()
    found = redundancy(features)
    assert found.item() == pytest.approx(0)
    found.sum().backward()
    assert torch.isfinite(features.grad).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(2, 6), st.lists(st.integers(2, 6), min_size=2, max_size=3), st.integers(0, 99))
def test_of_any_shape_between_0_and_1_and_blind_to_scale(batch, channels, size, seed):
    torch.manual_seed(seed)
    features = torch.randn(batch, channels, *size)
    found = redundancy(features)
    assert found.shape == (batch,)
    assert ((found >= 0) & (found <= 1)).all()
    torch.testing.assert_close(redundancy(7 * features + 2), found, rtol=1e-2, atol=1e-4)


def test_float32_under_autocast():
    features = torch.rand(1, 3, 4, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(redundancy(features), redundancy(features.float()))
        assert redundancy(features.bfloat16()).dtype == torch.float32


def test_descent_makes_copies_differ():
    torch.manual_seed(0)
    features = (torch.rand(1, 1, 4, 4, 4) + 0.1 * torch.rand(1, 3, 4, 4, 4)).requires_grad_()
    begun = redundancy(features).item()
    optimizer = torch.optim.Adam([features], 0.05)
    for _ in range(50):
        optimizer.zero_grad()
        redundancy(features).sum().backward()
        optimizer.step()
    assert redundancy(features).item() < 0.1 * begun
