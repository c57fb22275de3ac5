# SPDX-License-Identifier: Apache-2.0

"""The heads: identity start, bounds, gradients, other backbones."""

import math

import numpy as np
import pytest
import torch
from monai.networks.nets import SegResNet
from scipy.spatial.transform import Rotation
from scripts.errors import InputError
from scripts.networks import AffineHead, DeformableHead, Levels, RestorationHead, ZMatchingHead
from scripts.spatial import affine_displacement, fuse, warp
from torch import nn


def features(channels, size, batch=2, seed=0):
    """Random feature maps."""
    return torch.randn(batch, channels, *size, generator=torch.Generator().manual_seed(seed))


def levels(coarse, local):
    """Features as a backbone of no other levels gives them."""
    return Levels(local[:, :1], coarse, local)


def nudge(module, seed=0):
    """Small random numbers for the layers that start at zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize("size", [(12, 10, 8), (12, 10)])
def test_affine_head_starts_at_the_identity(size):
    """A new head gives the identity for any features, and so no displacement."""
    n = len(size)
    head = AffineHead(4, 8, spatial_dims=n, spacing=(1.0, 2.0, 0.5)[:n])
    coarse = tuple(k // 2 for k in size)
    affine = head.affine(features(4, coarse), features(4, coarse, seed=1), size)
    assert affine.shape == (2, n, n + 1)
    torch.testing.assert_close(affine, torch.eye(n, n + 1).expand(2, -1, -1), atol=1e-5, rtol=0)
    assert affine_displacement(affine, size).abs().max() < 1e-4


def test_affine_head_compares_the_images():
    """Two equal images give the same map as any other two equal ones (the bias), different images another one."""
    head = AffineHead(4, 8)
    nudge(head)
    first, second = features(4, (3, 3, 3)), features(4, (3, 3, 3), seed=1)
    size = (12, 12, 12)
    torch.testing.assert_close(head.affine(first, first, size), head.affine(second, second, size), atol=1e-5, rtol=0)
    assert (head.affine(first, second, size) - head.affine(first, first, size)).abs().max() > 1e-3
    assert (head.affine(first, second, size) - head.affine(second, first, size)).abs().max() > 1e-3


def test_relative_and_published_affine_head():
    """relative=False is the paper's head: the same parameters, fed with the mean itself instead of the difference."""
    torch.manual_seed(0)
    relative, published = AffineHead(4, 8), AffineHead(4, 8, relative=False)
    nudge(relative)
    published.load_state_dict(relative.state_dict())
    moving, fixed = features(4, (3, 4, 5)), features(4, (3, 4, 5), seed=1)
    pooled = [published.conv(torch.cat([image, fixed], dim=1)).mean(dim=(2, 3, 4)) for image in (moving, fixed)]
    size = (12, 16, 20)
    for head, seen in ((published, pooled[0]), (relative, pooled[0] - pooled[1])):
        rotation = 0.3 * head.parameters_of_map(seen)[:, :3].tanh()
        head.bounds = [0.3, 0, 0, 0]
        found = head.affine(moving, fixed, size)[:, :, :3].detach().numpy()
        angles = Rotation.from_matrix(found).as_euler("xyz")
        np.testing.assert_allclose(angles, rotation.detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("sign", [-1, 1])
def test_affine_bounds_hold(dims, sign):
    """Huge raw parameters end at the bounds: each angle, factor, shear and translation."""
    size = (20, 14, 10)[:dims]
    count = 3 if dims == 3 else 1
    spacing = (0.7, 1.5, 3.0)[:dims]
    bounds = {"max_rotation": 0.3, "max_scale": 0.2, "max_shear": 0.15, "max_translation": 0.4}
    head = AffineHead(4, 8, spatial_dims=dims, spacing=spacing, **bounds)

    def linear_part(first, last):
        with torch.no_grad():
            head.parameters_of_map.bias.zero_()
            head.parameters_of_map.bias[first:last] = sign * 1e4
        found = head.affine(features(4, size, 1), features(4, size, 1, seed=1), size)[0].double()
        unit = torch.tensor(spacing, dtype=torch.float64)
        centre = (torch.tensor(size) - 1) / 2
        moved = (found[:, :dims] @ centre.double() + found[:, dims] - centre) * unit
        return (unit[:, None] * found[:, :dims] / unit).detach().numpy(), moved.detach().numpy()

    for k in range(count):
        linear, moved = linear_part(k, k + 1)
        np.testing.assert_allclose(linear @ linear.T, np.eye(dims), atol=1e-5)
        assert math.acos((np.trace(linear) - dims + 2) / 2) == pytest.approx(0.3, abs=1e-4)
        np.testing.assert_allclose(moved, 0, atol=1e-4)
    linear, _ = linear_part(count, count + dims)
    np.testing.assert_allclose(linear, np.eye(dims) * (1 + sign * 0.2), atol=1e-5)
    shears = dims * (dims - 1)
    linear, _ = linear_part(count + dims, count + dims + shears)
    np.testing.assert_allclose(linear[~np.eye(dims, dtype=bool)], sign * math.tan(0.15), atol=1e-5)
    linear, moved = linear_part(count + dims + shears, count + 2 * dims + shears)
    np.testing.assert_allclose(moved, sign * 0.4 * np.array(size) * spacing, rtol=1e-4)
    np.testing.assert_allclose(linear, np.eye(dims), atol=1e-6)


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_scale": 1.0},
        {"max_scale": -0.1},
        {"max_shear": math.pi / 2},
        {"max_shear": -0.1},
        {"spacing": (1.0, 1.0)},
        {"spacing": (1.0, 0.0, 1.0)},
        {"spacing": (1.0, 1.0), "spatial_dims": 3},
        {"spacing": (1.0, 1.0, 1.0), "spatial_dims": 2},
    ],
)
def test_affine_head_refusals(arguments):
    """Bounds that allow a singular map and spacings that do not fit are refused by name."""
    name = "spacing" if "spacing" in arguments else "max_"
    with pytest.raises(InputError, match=name):
        AffineHead(4, 8, **arguments)


@pytest.mark.parametrize("size", [(7, 6, 5), (9, 6)])
def test_deformable_head_starts_at_zero_and_learns(size):
    """Displacement 0 at first, in the right shape; after one step another one."""
    head = DeformableHead(4, 8, spatial_dims=len(size))
    moving, fixed = features(4, size), features(4, size, seed=1)
    field = head.field(moving, fixed)
    assert field.shape == (2, len(size), *size)
    assert field.abs().max() == 0
    optimiser = torch.optim.SGD(head.parameters(), 0.1)
    (field - 1).square().mean().backward()
    optimiser.step()
    assert head.field(moving, fixed).abs().max() > 0


@pytest.mark.parametrize("size", [(7, 6, 5), (9, 6)])
def test_deformable_head_convolves_the_concatenated_features(size):
    """The moving ones first, as in the paper, though nothing is concatenated; values and gradients."""
    head = DeformableHead(4, 8, spatial_dims=len(size)).double()
    nn.init.normal_(head.conv.conv_0.conv.bias)
    both = [features(4, size, seed=seed).double().requires_grad_() for seed in (0, 1)]
    found, expected = head.hidden(*both), head.conv(torch.cat(both, dim=1))
    assert torch.allclose(found, expected)
    inputs = [*both, *head.conv.parameters()]
    gradients = [torch.autograd.grad(result.square().sum(), inputs) for result in (found, expected)]
    assert all(torch.allclose(*pair) for pair in zip(*gradients, strict=True))


@pytest.mark.parametrize("dims", [2, 3])
def test_restoration_head(dims):
    """Shape kept, channels of the image, 4 groups of 4 channels at paper scale, for other channel numbers too."""
    head = RestorationHead(8, 2, 16, spatial_dims=dims)
    assert head(features(8, (5, 6, 7)[:dims])).shape == (2, 2, *(5, 6, 7)[:dims])
    (norm,) = [layer for layer in head.modules() if isinstance(layer, nn.GroupNorm)]
    assert norm.num_groups == 4
    assert RestorationHead(4, 1, 6, spatial_dims=dims)(features(4, (4, 4, 4)[:dims])).shape[1] == 1


def test_matching_is_the_fused_map_of_aligned_features():
    """The deformable head sees the moving features under the affine map; the field returned is the fused one."""
    torch.manual_seed(0)
    size = (10, 8, 6)
    seen = {}

    class Spy(DeformableHead):
        def field(self, moving, fixed):
            seen.update(moving=moving, fixed=fixed)
            return super().field(moving, fixed)

    head = ZMatchingHead(AffineHead(4, 8), Spy(3, 8))
    nudge(head)
    fixed = levels(features(4, (5, 4, 3)), features(3, size))
    moving = levels(features(4, (5, 4, 3), seed=1), features(3, size, seed=2))
    found = head(fixed, moving)
    torch.testing.assert_close(found["affine"], head.global_matching.affine(moving.bottleneck, fixed.bottleneck, size))
    assert (found["affine"] - torch.eye(3, 4)).abs().max() > 1e-3
    torch.testing.assert_close(seen["moving"], warp(moving.local, affine_displacement(found["affine"], size)))
    assert seen["fixed"] is fixed.local
    torch.testing.assert_close(found["displacement"], fuse(found["affine"], found["local_displacement"]))
    assert found["local_displacement"].abs().max() > 0


@pytest.mark.parametrize("size", [(8, 6, 5), (8, 6)])
def test_without_affine_head(size):
    """global_matching=None: the affine map is the identity and the fused field is the deformable head's."""
    n = len(size)
    head = ZMatchingHead(None, DeformableHead(3, 8, spatial_dims=n))
    nudge(head)
    anything = torch.zeros(2, 1)
    found = head(levels(anything, features(3, size)), levels(anything, features(3, size, seed=1)))
    torch.testing.assert_close(found["affine"], torch.eye(n, n + 1).expand(2, -1, -1))
    torch.testing.assert_close(found["displacement"], found["local_displacement"], atol=1e-5, rtol=0)
    assert found["displacement"].abs().max() > 0


def test_matching_on_a_monai_network():
    """The head matches with SegResNet's features; gradients reach every parameter of the head and the backbone."""
    torch.manual_seed(0)
    size = (16, 24, 16)
    backbone = SegResNet(init_filters=8, in_channels=1, out_channels=4, blocks_down=(1, 1, 1), blocks_up=(1, 1))

    def both(image):
        coarse, levels = backbone.encode(image)
        return coarse, backbone.decode(coarse, levels[::-1])

    head = ZMatchingHead(AffineHead(32, 8), DeformableHead(4, 8))
    nudge(head)
    fixed, moving = (torch.rand(2, 1, *size, generator=torch.Generator().manual_seed(k)) for k in range(2))
    found = head(Levels.of(both, fixed), Levels.of(both, moving))
    assert found["displacement"].shape == (2, 3, *size)
    (warp(moving, found["displacement"]) - fixed).square().mean().backward()
    for name, parameter in [*head.named_parameters(), *backbone.named_parameters()]:
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_heads_under_autocast():
    """Maps come out in float32 and close to those of full precision."""
    torch.manual_seed(0)
    size = (12, 10, 8)
    head = ZMatchingHead(AffineHead(8, 8), DeformableHead(3, 8))
    nudge(head)
    fixed = levels(features(8, (3, 3, 2)), features(3, size))
    moving = levels(features(8, (3, 3, 2), seed=1), features(3, size, seed=2))
    expected = head(fixed, moving)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = head(fixed, moving)
    for name, value in found.items():
        assert value.dtype == torch.float32, name
        assert (value - expected[name]).abs().max() < 0.25, name
