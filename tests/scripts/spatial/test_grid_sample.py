# SPDX-License-Identifier: Apache-2.0

"""Sampling a single image in parts: the same values and gradients, by all threads."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scripts.spatial import grid_sample
from torch.nn import functional

sampling = import_module("scripts.spatial.grid_sample")  # the package has a function of that name


@pytest.fixture(autouse=True)
def four_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(threads)


def batches_seen(monkeypatch):
    seen = []
    original = functional.grid_sample
    monkeypatch.setattr(
        sampling.functional, "grid_sample", lambda image, *a, **k: seen.append(len(image)) or original(image, *a, **k)
    )
    return seen


@settings(max_examples=80, deadline=None)
@given(
    size=st.lists(st.integers(1, 8), min_size=2, max_size=3),
    new=st.integers(1, 8),
    channels=st.sampled_from([1, 3, 8, 12]),
    batch=st.integers(1, 2),
    learned=st.booleans(),
    last=st.booleans(),
    padding=st.sampled_from(["zeros", "border"]),
)
def test_equals_pytorchs(size, new, channels, batch, learned, last, padding):
    torch.manual_seed(0)
    image = torch.rand(batch, channels, *size, dtype=torch.float64)
    if last:
        image = image.contiguous(memory_format=torch.channels_last_3d if len(size) == 3 else torch.channels_last)
    image.requires_grad_(learned)
    places = torch.rand(batch, new, *size[1:], len(size), dtype=torch.float64) * 2.4 - 1.2
    places.requires_grad_()
    found = grid_sample(image, places, "bilinear", padding)
    expected = functional.grid_sample(image, places, "bilinear", padding, align_corners=True)
    assert torch.equal(found, expected)
    inputs = (image, places) if learned else (places,)
    weight = torch.rand_like(expected)
    gradients = [torch.autograd.grad((result * weight).sum(), inputs) for result in (found, expected)]
    assert all(torch.allclose(*pair) for pair in zip(*gradients, strict=True))


@pytest.mark.parametrize(
    ("shape", "learned", "parts"),
    [
        ((1, 16, 6, 5, 4), True, 4),  # channels
        ((1, 8, 6, 5, 4), True, 2),  # not too few of them
        ((1, 3, 6, 5, 4), True, 1),
        ((1, 3, 6, 5, 4), False, 3),  # slices, in equal parts
        ((1, 1, 7, 5, 4), False, 1),
        ((2, 16, 6, 5, 4), True, 1),  # a batch keeps PyTorch busy
    ],
)
def test_parts(monkeypatch, shape, learned, parts):
    seen = batches_seen(monkeypatch)
    grid_sample(torch.rand(shape, requires_grad=learned), torch.rand(shape[0], *shape[2:], 3), "bilinear", "zeros")
    assert seen == [parts if shape[0] == 1 else shape[0]]


def test_one_thread_needs_no_parts(monkeypatch):
    torch.set_num_threads(1)
    seen = batches_seen(monkeypatch)
    grid_sample(torch.rand(1, 16, 6, 5, 4), torch.rand(1, 6, 5, 4, 3), "nearest", "zeros")
    assert seen == [1]


def test_a_gradient_of_the_image_is_not_kept_once_a_part():
    """Parts of the positions would each hold one as large as the image."""
    image = torch.rand(1, 16, 8, 8, 8, requires_grad=True)
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        grid_sample(image, torch.rand(1, 8, 8, 8, 3), "bilinear", "zeros").sum().backward()
    sizes = [event.nbytes() for event in profile.kineto_results.events() if event.name() == "[memory]"]
    assert max(sizes) == image.numel() * image.element_size()
