# SPDX-License-Identifier: Apache-2.0
"""Any encoder-decoder network as a backbone: f^g, f^l and the other levels are read from its layers by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any

import torch
from monai.networks.utils import eval_mode
from torch import nn
from torch.nn import functional

from ..errors import InputError
from .blocks import padding_to_multiple
from .levels import encoder_and_decoder
from .pretrained import Pretrained
from .recorded import recorded


@recorded
class NetworkBackbone(Pretrained):
    """
    A network of MONAI's, nnU-Net's or one's own that is pre-trained as it is: the global features f^g are what one of
    its layers gives, the local features f^l what its last layer is given. The last layer belongs to a task; it is not
    trained here, and stays in the weights so that they load into the plain network as they are.

    Any image size will do: it is padded symmetrically to a multiple and the local features are cropped back.

    Args:
        network: image to ``(B, any channels, D, H, W)``, or a ``functools.partial`` that builds it (``"_mode_":
            "callable"`` in a configuration), which a run's ``settings.json`` can repeat.
        global_features: name of the layer whose output is f^g, as ``network.named_modules()`` has it.
        local_features: name of the network's last layer, whose input is f^l.
        levels: names of the layers whose outputs are the features of the other levels, those of the encoder and then
            of the decoder, in the order of computation.
        unused: names of further layers on which no feature depends, as those of a deep supervision.
        multiple: of which the network needs each side of an image to be, 2 to the power of its poolings.
        z_score: give the network each image with mean 0 and standard deviation 1, as nnU-Net does.

    Raises:
        InputError: naming the layer that the network does not have.
    """

    def __init__(
        self,
        network: nn.Module | Callable[[], nn.Module],
        global_features: str,
        local_features: str,
        levels: Sequence[str] = (),
        unused: Sequence[str] = (),
        multiple: int = 16,
        z_score: bool = False,
    ) -> None:
        super().__init__()
        self.network = network if isinstance(network, nn.Module) else network()
        if isinstance(network, partial):
            keywords = {name: _named(value) for name, value in network.keywords.items()}
            self.network.arguments = {"_mode_": "callable", **keywords}  # type: ignore[assignment]
        self.names, self.multiple, self.z_score = [global_features, local_features, *levels], multiple, z_score
        self._found: dict[str, torch.Tensor] = {}
        for name in (global_features, *levels):
            self._layer(name).register_forward_hook(partial(self._keep_output, name))
        self._layer(local_features).register_forward_pre_hook(partial(self._keep_input, local_features))
        self.untrained = (local_features, *unused)
        self._freeze_untrained()

    def requires_grad_(self, requires_grad: bool = True) -> NetworkBackbone:
        """As every module's, but for the layers on which no feature depends."""
        super().requires_grad_(requires_grad)
        self._freeze_untrained()
        return self

    def _freeze_untrained(self) -> None:
        for name in self.untrained:  # else processes that train together would wait for their gradients
            self._layer(name).requires_grad_(False)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            image: ``(B, C, D, H, W)``.

        Returns:
            global features f^g ``(B, Cg, d, h, w)`` of the padded image, and local features f^l ``(B, Cl, D, H, W)``.
        """
        found = self.levels(image)
        return found[0], found[1]

    def levels(self, image: torch.Tensor) -> list[torch.Tensor]:
        """
        Args:
            image: ``(B, C, D, H, W)``.

        Returns:
            f^g and f^l as :meth:`forward` gives them, and the features of the other levels of the padded image.
        """
        features, padding = self._padded(image), self.padding(list(image.shape[2:]))
        if max(padding) > 0:
            features[1] = functional.pad(features[1], [-zeros for zeros in padding])
        return features

    def bottleneck(self, image: torch.Tensor) -> torch.Tensor:
        """f^g: ``(B, C, D, H, W)`` to ``(B, features[-1], d, h, w)``, of the padded image."""
        return self._padded(image)[0]

    def decoder_levels(self, image: torch.Tensor) -> list[torch.Tensor]:
        """The decoder's levels ``(B, features[k], d, h, w)`` of the padded image, full size first."""
        _, local, *others = self._padded(image)
        return [local, *encoder_and_decoder(others)[1][::-1]]

    def padding(self, size: list[int]) -> list[int]:
        """Zeros before and after each axis, last axis first (as ``torch.nn.functional.pad`` takes them)."""
        return padding_to_multiple(size, self.multiple)

    @property
    def spatial_dims(self) -> int:
        """Of the images, by the network's first convolution."""
        return self._stem().dim() - 2

    @property
    def in_channels(self) -> int:
        """Of the images, by the network's first convolution."""
        return self._stem().shape[1]

    @cached_property
    def features(self) -> tuple[int, ...]:
        """Channels of the decoder's levels, from full size down, and of f^g, found on an image of zeros."""
        with eval_mode(self.network):
            bottleneck, local, *others = self._padded(self._smallest_image())
        return tuple(level.shape[1] for level in (local, *encoder_and_decoder(others)[1][::-1], bottleneck))

    def names_of_last_levels(self, count: int) -> list[str]:
        """
        Names of the weights of the decoder's last levels, those next to full size: no other level depends on them.

        Args:
            count: of levels.
        """
        names, weights = zip(*((name, w) for name, w in self.named_parameters() if w.requires_grad), strict=True)
        with eval_mode(self.network), torch.enable_grad():
            bottleneck, local, *others = self._padded(self._smallest_image())
            encoder, decoder = encoder_and_decoder(others)
            deeper = (bottleneck, *encoder, *(*decoder, local)[: len(decoder) + 1 - count])
            total = torch.stack([level.sum() for level in deeper]).sum()
            gradients = torch.autograd.grad(total, weights, allow_unused=True)
        return [name for name, gradient in zip(names, gradients, strict=True) if gradient is None] if count else []

    def _smallest_image(self) -> torch.Tensor:
        """Zeros, two voxels a side at the bottleneck: a normalisation wants more than one."""
        stem = self._stem()
        return stem.new_zeros(1, self.in_channels, *[2 * self.multiple] * self.spatial_dims)

    def _stem(self) -> torch.Tensor:
        """The weights of the network's first convolution: networks are defined from the image on."""
        return next(weight for weight in self.network.parameters() if weight.dim() > 2)

    def _padded(self, image: torch.Tensor) -> list[torch.Tensor]:
        """The features of all levels of the padded image, see :meth:`levels`."""
        if self.z_score:
            axes = list(range(2, image.dim()))
            deviation = image.std(dim=axes, keepdim=True, correction=0).clamp(min=1e-8)
            image = (image - image.mean(dim=axes, keepdim=True)) / deviation
        try:
            self.network(functional.pad(image, self.padding(list(image.shape[2:]))))
            return [self._found[name] for name in self.names]
        finally:
            self._found.clear()  # else they outlive their gradients

    def _layer(self, name: str) -> nn.Module:
        try:
            return self.network.get_submodule(name)
        except AttributeError as error:
            parts = ", ".join(child for child, _ in self.network.named_children())
            raise InputError(f"{type(self.network).__name__} has no layer '{name}'; its parts are {parts}") from error

    def _keep_output(self, name: str, layer: nn.Module, given: Any, output: torch.Tensor) -> None:
        self._found[name] = output

    def _keep_input(self, name: str, layer: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        self._found[name] = given[0]


def _named(value: Any) -> Any:
    """A class as an expression of a configuration."""
    return f"${value.__module__}.{value.__qualname__}" if isinstance(value, type) else value
