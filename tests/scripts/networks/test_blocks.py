# SPDX-License-Identifier: Apache-2.0

from typing import ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.networks.nets.basic_unet import UpCat
from scripts.networks import SmallVolumeConv3d, UpJoin, blocks, cpu, initialise
from scripts.networks.cpu import CHANNELS_A_VOXEL, SLOW_BELOW
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@pytest.fixture
def layer() -> nn.Conv3d:
    layer = nn.Conv3d(3, 5, kernel_size=3, padding=1).double()
    initialise(layer)
    nn.init.normal_(layer.bias)
    return layer


def plain(layer: nn.Conv3d, image: torch.Tensor) -> torch.Tensor:
    return functional.conv3d(image, layer.weight, layer.bias, padding=1)


class TestSmallVolumeConv3d:
    @settings(max_examples=60, deadline=None)
    @given(
        size=st.tuples(st.integers(1, 9), st.integers(1, 5), st.integers(1, 5)),
        batch=st.integers(1, 2),
        channels=st.sampled_from([3, 64]),
        layout=st.sampled_from([torch.contiguous_format, torch.channels_last_3d]),
    )
    def test_equals_the_plain_convolution(self, size, batch, channels, layout):
        torch.manual_seed(0)
        layer = nn.Conv3d(channels, 5, kernel_size=3, padding=1).double().to(memory_format=layout)
        initialise(layer)
        image = torch.rand(batch, channels, *size, dtype=torch.float64).contiguous(memory_format=layout)
        image.requires_grad_()
        weight = torch.rand(batch, 5, *size, dtype=torch.float64)
        found, expected = layer(image), plain(layer, image)
        assert torch.allclose(found, expected)
        inputs = (image, layer.weight, layer.bias)
        gradients = [torch.autograd.grad((result * weight).sum(), inputs) for result in (found, expected)]
        assert all(torch.allclose(*pair) for pair in zip(*gradients, strict=True))

    def test_a_small_single_volume_is_a_batch_of_two(self, layer, monkeypatch):
        seen = []
        original = functional.conv3d
        monkeypatch.setattr(cpu.functional, "conv3d", lambda x, *a, **k: seen.append(x.shape) or original(x, *a, **k))
        layer(torch.rand(1, 3, 7, 6, 5, dtype=torch.float64))
        assert seen == [(2, 3, 6, 6, 5)]
        fast = [(2, 3, 7, 6, 5), (1, 3, SLOW_BELOW // 9 + 1, 3, 1)]
        for size in fast:
            layer(torch.rand(size, dtype=torch.float64))
        assert seen[1:] == fast

    @pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
    def test_fewer_voxels_than_channels_are_a_product(self, monkeypatch, layout):
        """Result and gradient of the weights have the memory layout of the network."""
        layer = nn.Conv3d(CHANNELS_A_VOXEL * 16, 5, kernel_size=3, padding=1).to(memory_format=layout)
        initialise(layer)
        seen = []
        original = functional.conv3d
        monkeypatch.setattr(cpu.functional, "conv3d", lambda x, *a, **k: seen.append(x.shape) or original(x, *a, **k))
        result = layer(torch.rand(2, layer.in_channels, 2, 2, 2))
        assert not seen
        assert result.is_contiguous(memory_format=torch.channels_last_3d)
        result.sum().backward()
        assert layer.weight.grad.is_contiguous(memory_format=layout)
        larger = (2, layer.in_channels, 3, 2, 2)
        layer(torch.rand(larger))
        assert seen == [larger]

    @settings(max_examples=60, deadline=None)
    @given(
        size=st.tuples(st.integers(1, 7), st.integers(1, 4), st.integers(1, 9)),
        batch=st.integers(1, 2),
        channels=st.integers(1, 9),
        layout=st.sampled_from([torch.contiguous_format, torch.channels_last_3d]),
    )
    def test_without_gradients_neighbours_are_computed_together(self, size, batch, channels, layout):
        """The same values; the layout decides."""
        torch.manual_seed(0)
        layer = nn.Conv3d(3, channels, kernel_size=3, padding=1).double().to(memory_format=layout)
        initialise(layer)
        nn.init.normal_(layer.bias)
        image = torch.rand(batch, 3, *size, dtype=torch.float64).contiguous(memory_format=layout)
        strides = []
        original = functional.conv3d

        def watched(*args, stride=(1, 1, 1), **kwargs):
            strides.append(stride)
            return original(*args, stride=stride, **kwargs)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cpu, "LANES", 16)
            patch.setattr(cpu.functional, "conv3d", watched)
            with torch.no_grad():
                found = layer(image)
            assert torch.allclose(found, plain(layer, image))
            together = strides[0][2]
            assert size[2] % together == 0
            assert together * channels <= 16
            fits = any(size[2] % n == 0 for n in range(2, 16 // channels + 1))
            if batch > 1:  # else of two halves
                assert (together > 1) == (fits and layout == torch.channels_last_3d)
            layer(image)
        assert strides[-1] == (1, 1, 1)

    @pytest.mark.parametrize("batch", [1, 2])
    def test_neighbours_keep_channels_last(self, monkeypatch, batch):
        """The strides too of an axis of one image, by which normalisation recognises the layout."""
        monkeypatch.setattr(cpu, "LANES", 16)
        monkeypatch.setattr(cpu, "SLOW_BELOW", 0)
        layer = nn.Conv3d(3, 8, kernel_size=3, padding=1).to(memory_format=torch.channels_last_3d)
        initialise(layer)
        with torch.no_grad():
            found = layer(torch.rand(batch, 3, 4, 6, 8).contiguous(memory_format=torch.channels_last_3d))
        assert found.stride() == torch.empty_like(found, memory_format=torch.channels_last_3d).stride()

    @pytest.mark.parametrize("channels", [3, 1000])
    def test_an_exported_layer_is_a_plain_one(self, channels):
        layer = nn.Conv3d(channels, 5, kernel_size=3, padding=1).double()
        initialise(layer)
        image = torch.rand(1, channels, 7, 6, 5, dtype=torch.float64)
        for exported in (torch.jit.script(layer), torch.jit.trace(layer, image)):
            assert torch.allclose(exported(image), layer(image))
            assert "pad" not in str(exported.inlined_graph).replace("padding", "")


class TestUpJoin:
    SETTINGS: ClassVar = {
        "in_chns": 6,
        "cat_chns": 4,
        "out_chns": 4,
        "act": blocks.LEAKY_RELU,
        "norm": "instance",
        "bias": True,
        "upsample": "nontrainable",
        "pre_conv": None,
        "halves": False,
    }

    @pytest.mark.parametrize("dimensions", [2, 3])
    @pytest.mark.parametrize("last", [False, True])
    def test_equals_monais(self, dimensions, last):
        """Values and gradients, in both memory layouts."""
        up = UpJoin(dimensions, **self.SETTINGS, interp_mode="linear", align_corners=True, is_pad=False).double()
        below, skipped = (
            torch.rand(2, channels, *[edge] * dimensions, dtype=torch.float64) for channels, edge in ((6, 3), (4, 6))
        )
        if last:
            layout = torch.channels_last_3d if dimensions == 3 else torch.channels_last
            below, skipped = (tensor.contiguous(memory_format=layout) for tensor in (below, skipped))
        inputs = [below.requires_grad_(), skipped.requires_grad_()]
        found, expected = up(*inputs), UpCat.forward(up, *inputs)
        assert torch.allclose(found, expected)
        gradients = [torch.autograd.grad(result.square().sum(), inputs) for result in (found, expected)]
        assert all(torch.allclose(*pair) for pair in zip(*gradients, strict=True))

    def test_nothing_is_concatenated(self):
        """Neither forwards nor backwards is there a tensor as large as both together."""
        up = UpJoin(2, **self.SETTINGS)  # in 3D such small volumes are joined of halves
        below, skipped = torch.rand(1, 6, 6, 6, requires_grad=True), torch.rand(1, 4, 12, 12, requires_grad=True)
        joined = skipped.numel() + up.upsample(below).numel()
        largest = []

        class Sizes(TorchDispatchMode):
            def __torch_dispatch__(self, function, types, args=(), kwargs=None):
                result = function(*args, **(kwargs or {}))
                largest.extend(one.numel() for one in tree_leaves(result) if isinstance(one, torch.Tensor))
                return result

        with Sizes():
            up(below, skipped).square().sum().backward()
        assert up.upsample(below).numel() <= max(largest) < joined

    def test_without_a_skipped_level(self):
        up = UpJoin(3, **{**self.SETTINGS, "cat_chns": 0})
        below = torch.rand(1, 6, 3, 3, 3)
        assert torch.equal(up(below, None), UpCat.forward(up, below, None))

    def test_can_be_exported(self):
        up = UpJoin(3, **self.SETTINGS).eval().double()
        inputs = torch.rand(1, 6, 3, 3, 3, dtype=torch.float64), torch.rand(1, 4, 6, 6, 6, dtype=torch.float64)
        assert torch.allclose(torch.jit.script(up)(*inputs), up(*inputs))


class TestInitialise:
    def test_only_what_the_halves_are_right_for_is_exchanged(self):
        kinds = [
            nn.Conv3d(2, 2, 1),
            nn.Conv3d(2, 2, 3, stride=2, padding=1),
            nn.Conv3d(2, 2, 3),
            nn.Conv3d(2, 2, 3, padding=1, groups=2),
            nn.Conv3d(2, 2, 3, padding=1, padding_mode="circular"),
        ]
        module = nn.Sequential(*kinds, nn.Conv3d(2, 2, 3, padding=1))
        initialise(module)
        assert [type(layer) for layer in module] == [nn.Conv3d] * len(kinds) + [SmallVolumeConv3d]

    def test_weights_keep_their_names(self):
        module = nn.Sequential(nn.Conv3d(2, 2, 3, padding=1))
        names = list(module.state_dict())
        initialise(module)
        assert list(module.state_dict()) == names
        assert not module[0].bias.any()
