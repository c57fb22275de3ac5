# SPDX-License-Identifier: Apache-2.0
"""Any encoder-decoder network as a backbone: f^g, f^l and the other levels are read from its layers by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ..errors import InputError
from .blocks import padding_to_multiple
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
        levels: names of the layers whose outputs are the features of the other levels.
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
        for name in (local_features, *unused):  # else processes that train together would wait for their gradients
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
        padding = padding_to_multiple(list(image.shape[2:]), self.multiple)
        if self.z_score:
            axes = list(range(2, image.dim()))
            deviation = image.std(dim=axes, keepdim=True, correction=0).clamp(min=1e-8)
            image = (image - image.mean(dim=axes, keepdim=True)) / deviation
        try:
            self.network(functional.pad(image, padding))
            features = [self._found[name] for name in self.names]
        finally:
            self._found.clear()  # else they outlive their gradients
        if max(padding) > 0:
            features[1] = functional.pad(features[1], [-zeros for zeros in padding])
        return features

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
