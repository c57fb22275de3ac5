# SPDX-License-Identifier: Apache-2.0

"""The correlation head: exact against a plain loop, finds shifts, teaches the features, stays small."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from scripts.errors import InputError
from scripts.networks import (
    GVSL,
    CorrelationHead,
    RestorationHead,
    UNetBackbone,
    ZMatchingHead,
    expected_offset,
)
from scripts.spatial import warp
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode


def noise(channels, size, batch=2, seed=0, dtype=torch.float32):
    return torch.randn(batch, channels, *size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def plain_loop(fixed, moving, radius):
    """The same by one pass over all offsets."""
    n, size = fixed.dim() - 2, fixed.shape[2:]
    offsets = list(product(range(-radius, radius + 1), repeat=n))
    padded = functional.pad(moving, [radius] * 2 * n)
    known = functional.pad(torch.ones_like(moving[:, 0]), [radius] * 2 * n)
    logits = []
    for offset in offsets:
        place = tuple(slice(radius + d, radius + d + edge) for d, edge in zip(offset, size, strict=True))
        similarity = (fixed * padded[(..., *place)]).sum(dim=1)
        logits.append(similarity.masked_fill(known[(slice(None), *place)] == 0, -torch.inf))
    weights = torch.stack(logits, dim=1).softmax(dim=1)
    return torch.einsum("bo...,on->bn...", weights, torch.tensor(offsets, dtype=fixed.dtype))


@pytest.mark.parametrize("size", [(5, 7, 9), (1, 2, 3), (8, 4, 6), (5, 9), (1, 4)])
@pytest.mark.parametrize(("radius", "tile"), [(3, 4), (1, 2), (2, 3)])
def test_equals_a_plain_loop(size, radius, tile):
    """Tiles and the fused kernel change nothing, nor do they for the gradient; any size, also in 2D."""
    fixed, moving = (noise(6, size, seed=k, dtype=torch.float64).requires_grad_() for k in range(2))
    found, expected = expected_offset(fixed, moving, radius, tile), plain_loop(fixed, moving, radius)
    torch.testing.assert_close(found, expected)
    weights = noise(len(size), size, seed=2, dtype=torch.float64)
    for ours, theirs in zip(
        torch.autograd.grad((found * weights).sum(), [fixed, moving]),
        torch.autograd.grad((expected * weights).sum(), [fixed, moving]),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(("device", "width"), [("cpu", 7), ("meta", 8)])
def test_channels_that_fused_kernels_take(monkeypatch, device, width):
    """Elsewhere than on a CPU queries, keys and values have a multiple of 8 channels, or the kernel is not used."""
    seen = []

    def spy(*tensors, **options):
        seen.extend(tensor.shape[-1] for tensor in tensors)
        return attention(*tensors, **options)

    attention = functional.scaled_dot_product_attention
    monkeypatch.setattr(functional, "scaled_dot_product_attention", spy)
    fixed, moving = (noise(6, (8, 5, 4), seed=k).to(device) for k in range(2))
    assert expected_offset(fixed, moving, 2).shape == (2, 3, 8, 5, 4)
    assert seen == [width] * 3


def test_padded_channels_change_nothing():
    fixed, moving = (noise(6, (8, 5, 4), seed=k, dtype=torch.float64) for k in range(2))
    torch.testing.assert_close(expected_offset(fixed, moving, padded=True), expected_offset(fixed, moving))


@pytest.mark.parametrize("shift", [(-2, 4, 0), (6, -6, 2), (4, -2)])
def test_finds_a_shift(shift):
    """A copy shifted by whole voxels of half the size is found at exactly that shift, and warps back onto the other."""
    size = (32, 30, 34)[: len(shift)]
    axes = list(range(2, 2 + len(shift)))
    moving = functional.interpolate(noise(16, [edge // 2 for edge in size]), size=size)  # constant in each half voxel
    fixed = moving.roll([-amount for amount in shift], dims=axes)
    torch.manual_seed(0)
    field = CorrelationHead(16, 32, spatial_dims=len(shift), temperature=0.02).field(moving, fixed)
    inner = (..., *(slice(10, -10) for _ in shift))
    expected = torch.tensor(shift, dtype=torch.float32).reshape(-1, *[1] * len(shift)).expand_as(field[inner][0])
    assert (field[inner] - expected).abs().max() < 0.05
    assert (warp(moving, field) - fixed)[inner].abs().max() < 0.2


@pytest.mark.parametrize("size", [(8, 8, 8), (7, 5, 9), (3, 1, 2), (9, 6), (1, 1)])
def test_shape_bound_and_gradients(size):
    """
    Odd and tiny sizes, within twice the radius; a gradient for the features of both images and for every parameter.
    """
    head = CorrelationHead(4, 8, spatial_dims=len(size), radius=2)
    moving, fixed = (noise(4, size, seed=k).requires_grad_() for k in range(2))
    field = head.field(moving, fixed)
    assert field.shape == (2, len(size), *size)
    assert field.abs().max() <= 4
    (field * noise(len(size), size, seed=3)).sum().backward()
    for name, value in [("moving", moving), ("fixed", fixed), *head.named_parameters()]:
        assert value.grad.isfinite().all(), name
        assert value.grad.abs().sum() > 0 or min(size) < 2, name


def test_velocity_field():
    """With velocity_steps the output is integrated."""
    features = noise(4, (12, 10, 8)), noise(4, (12, 10, 8), seed=1)
    torch.manual_seed(0)
    plain = CorrelationHead(4, 8)
    integrated = CorrelationHead(4, 8, velocity_steps=5)
    integrated.load_state_dict(plain.state_dict())
    difference = (integrated.field(*features) - plain.field(*features)).abs().max()
    assert 1e-3 < difference < plain.field(*features).abs().max()


def test_under_autocast():
    """float32 out, close to full precision."""
    head = CorrelationHead(4, 8)
    features = noise(4, (8, 10, 8)), noise(4, (8, 10, 8), seed=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = head.field(*features)
    assert found.dtype == torch.float32
    assert (found - head.field(*features)).abs().max() < 0.25


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor made within it."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor) and 0 not in tensor.stride():
                self.elements = max(self.elements, tensor.numel())
        return result


def test_memory_is_bounded():
    """No tensor comes near one similarity for each voxel of half the size and each of its 343 offsets."""
    size = (32, 32, 32)
    moving, fixed = (noise(16, size, batch=1, seed=k).requires_grad_() for k in range(2))
    with Largest() as largest:
        CorrelationHead(16, 8).field(moving, fixed).square().mean().backward()
    similarities = 16**3 * 343
    assert moving.numel() <= largest.elements < 0.5 * similarities


def test_teaches_the_backbone():
    """Matching alone sends a gradient into every weight of the backbone that local features depend on."""
    torch.manual_seed(0)
    network = GVSL(
        UNetBackbone(features=(4, 8)),
        ZMatchingHead(None, CorrelationHead(4, 8)),
        RestorationHead(4, 1, 8),
        symmetric=True,
    )
    fixed, moving = (torch.rand(1, 1, 12, 16, 10, generator=torch.Generator().manual_seed(k)) for k in range(2))
    found = network(fixed, moving)
    there, back = warp(moving, found["displacement"]), warp(fixed, found["backward"]["displacement"])
    ((there - fixed).square().mean() + (back - moving).square().mean()).backward()
    for name, parameter in network.backbone.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    ("arguments", "word"), [({"radius": 0}, "radius"), ({"radius": 1.5}, "radius"), ({"temperature": 0}, "temperature")]
)
def test_refusals(arguments, word):
    with pytest.raises(InputError, match=word):
        CorrelationHead(4, 8, **arguments)
