# SPDX-License-Identifier: Apache-2.0

"""
The published training step, stated in the straightforward way: what this bundle's step is compared with.

The volumes are decoded within the step, the two images go through the backbone one by one, blocks are shuffled and
boxes filled one at a time, the moving image is interpolated twice, and the correlation is a dense 9x9x9 convolution.
Layers, memory layout and optimiser are PyTorch's as they come.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from monai.networks.nets.basic_unet import UpCat
from scipy.ndimage import gaussian_filter
from scripts.losses import SmoothnessLoss
from scripts.networks import GVSL, SmallVolumeConv3d, UpJoin
from scripts.spatial import affine_about_centre, affine_displacement, linear_matrix, warp
from torch import nn
from torch.nn import functional


def plain_copy(network: GVSL) -> GVSL:
    """The same network and weights with PyTorch's own convolutions and MONAI's own decoder."""
    network = copy.deepcopy(network)
    for layer in network.modules():
        if isinstance(layer, SmallVolumeConv3d):
            layer.__class__ = nn.Conv3d  # type: ignore[assignment]
        if isinstance(layer, UpJoin):
            layer.__class__ = UpCat  # type: ignore[assignment]
    return network


def published_copy(network: GVSL) -> GVSL:
    """:func:`plain_copy` in PyTorch's own memory layout, whose deformable head concatenates both images' features."""
    network = plain_copy(network).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    head: Any = network.matching_head.local_matching
    head.hidden = lambda moving, fixed: head.conv(torch.cat([moving, fixed], dim=1))
    return network


def dense_ncc(first: torch.Tensor, second: torch.Tensor, window: int = 9) -> torch.Tensor:
    """
    1 - squared local correlation, as published: sums by dense convolutions with ones.

    Args:
        first: ``(B, 1, D, H, W)``.
        second: ``(B, 1, D, H, W)``.
        window: odd edge of the window, in voxels.

    Returns:
        scalar.
    """
    ones = first.new_ones(1, 1, window, window, window)

    def total(image: torch.Tensor) -> torch.Tensor:
        return functional.conv3d(image, ones, padding=window // 2)

    count = window**3
    sum_a, sum_b = total(first), total(second)
    cross = total(first * second) - sum_a * sum_b / count
    variance_a = total(first * first) - sum_a * sum_a / count
    variance_b = total(second * second) - sum_b * sum_b / count
    return 1 - (cross * cross / (variance_a * variance_b + 1e-5)).mean()


def spatial_map(size: tuple[int, ...], rng: np.random.Generator) -> torch.Tensor:
    """A random affine and elastic displacement, ``(1, 3, D, H, W)`` in voxels, as strong as the paper states."""

    def draw(count: int, bound: float) -> torch.Tensor:
        return torch.as_tensor(rng.uniform(-bound, bound, (1, count)), dtype=torch.float32)

    linear = linear_matrix(draw(3, np.pi / 9), 1 + draw(3, 0.25), draw(6, np.pi / 18))
    affine = affine_about_centre(linear, draw(3, 0.1) * torch.as_tensor(size), size)
    sigma, magnitude = rng.uniform(10, 13), rng.uniform(0, 512)
    elastic = [gaussian_filter(rng.uniform(-1, 1, size), sigma) * magnitude for _ in size]
    return affine_displacement(affine, size) + torch.as_tensor(np.stack(elastic), dtype=torch.float32)[None]


def corrupt(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """
    Appearance transformation block by block.

    Args:
        image: ``(D, H, W)``, 0..1.
        rng: draws.

    Returns:
        of the same shape.
    """
    image, size = image.copy(), np.array(image.shape)
    largest = np.maximum(2, size // 20)
    for _ in range(int(0.75 * image.size / (np.prod(largest + 2) / 8))):  # as many as cover three quarters
        edge = rng.integers(2, largest + 1)
        start = [rng.integers(n - e + 1) for n, e in zip(size, edge, strict=True)]
        block = tuple(slice(a, a + e) for a, e in zip(start, edge, strict=True))
        voxels = image[block].flatten()
        rng.shuffle(voxels)
        image[block] = voxels.reshape(edge)
    points = np.vstack([np.zeros(2), rng.random((2, 2)), np.ones(2)])
    t = np.linspace(0, 1, 1000)[:, None]
    x, y = (np.hstack([(1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3]) @ points).T
    image = np.interp(image, x, y)
    for box in range(30):
        if box and rng.random() >= 0.95:
            break
        edge = rng.integers(size // 10, size // 5 + 1)
        start = [rng.integers(n - e + 1) for n, e in zip(size, edge, strict=True)]
        image[tuple(slice(a, a + e) for a, e in zip(start, edge, strict=True))] = rng.random(edge)
    return image.astype(np.float32)


def restated_step(
    network: GVSL, optimizer: torch.optim.Optimizer, decode: Callable, pair: Mapping[str, Mapping], seed: int
) -> float:
    """
    One step of a batch of one pair.

    Args:
        network: see :func:`published_copy`.
        optimizer: of its parameters.
        decode: preparation of a scan, from a dictionary with its path ``image``.
        pair: the scans ``fixed`` and ``moving``.
        seed: of the augmentation.

    Returns:
        the loss.
    """
    rng = np.random.default_rng(seed)
    fixed, moving = (decode({"image": pair[name]["image"]})["image"][None] for name in ("fixed", "moving"))
    spatial = spatial_map(tuple(fixed.shape[2:]), rng)
    fixed, moving = (warp(image, spatial, padding_mode="border") for image in (fixed, moving))
    corrupted = torch.as_tensor(corrupt(moving[0, 0].numpy(), rng))[None, None]
    optimizer.zero_grad()
    fixed_global, fixed_local = network.backbone(fixed)
    moving_global, moving_local = network.backbone(corrupted)
    size = fixed.shape[2:]
    matching: Any = network.matching_head
    affine = matching.global_matching.affine(moving_global, fixed_global, size)
    global_map = affine_displacement(affine, size)
    displacement = matching.local_matching.field(warp(moving_local, global_map), fixed_local)
    warped = warp(warp(moving, global_map), displacement)
    restored = network.restoration_head(moving_local)
    loss = dense_ncc(warped, fixed) + SmoothnessLoss()(displacement) + (restored - moving).square().mean()
    loss.backward()
    optimizer.step()
    return float(loss.detach())
