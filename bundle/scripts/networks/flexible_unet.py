# SPDX-License-Identifier: Apache-2.0
"""The pre-trained encoder under a name that MONAI's ``FlexibleUNet`` knows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from monai.networks.blocks import BaseEncoder
from monai.networks.nets.flexible_unet import FLEXUNET_BACKBONE
from torch import nn

from ..errors import InputError
from ..files import load_file
from .backbone import UNetBackbone
from .find_weights import find_weights
from .weights import load_weights, repeat_stem

MOST_LEVELS = 5
"""Below full size, of ``FlexibleUNet``."""


class FlexibleEncoder(nn.Module):
    """
    The encoder of a :class:`~scripts.networks.UNetBackbone` as :class:`monai.networks.nets.FlexibleUNet` wants it: the
    features from half size down. Those of full size are left out, that network has no skip there.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the image; the stem of one-channel weights is repeated, and divided.
        pretrained: begin with the weights of ``model``.
        features: channels of the levels, from full size down.
        model: a ``model.pt`` of a pre-training with these features.

    Raises:
        InputError: when the weights do not cover the encoder, or ``pretrained`` is asked for without a model.
    """

    def __init__(
        self,
        spatial_dims: int = 3,
        in_channels: int = 1,
        pretrained: bool = False,
        features: Sequence[int] = (16, 32, 64, 128),
        model: str | Path | None = None,
    ) -> None:
        super().__init__()
        backbone = UNetBackbone(spatial_dims, in_channels, features)
        self.stem, self.downs = backbone.stem, backbone.downs
        if pretrained:
            if model is None:
                raise InputError("there are no weights to begin with: pass register_encoder(model=<model.pt>)")
            weights = find_weights(load_file(model), self.state_dict(), model)
            own = {name: weight for name, weight in weights.items() if name.startswith(("stem.", "downs."))}
            load_weights(self, repeat_stem(own, backbone.stems, in_channels) if own else own, model)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """
        Args:
            image: ``(B, C, D, H, W)``, each side a multiple of ``2 ** (levels - 1)``.

        Returns:
            the features of the levels from half size down to the bottleneck f^g.

        Raises:
            ValueError: for an image of another size.
        """
        multiple = 2 ** len(self.downs)
        if any(n % multiple for n in image.shape[2:]):
            raise ValueError(f"each side of the image must be a multiple of {multiple}, not {list(image.shape[2:])}")
        levels = [self.stem(image)]
        for down in self.downs:
            levels.append(down(levels[-1]))
        return levels[1:]


def register_encoder(
    name: str = "gvsl", features: Sequence[int] = (16, 32, 64, 128), model: str | Path | None = None
) -> None:
    """
    Let ``FlexibleUNet(1, 2, backbone=name, pretrained=True, spatial_dims=3)`` find the pre-trained encoder. (It keeps
    the first of its ``decoder_channels``, one for each level below full size.)

    Args:
        name: to register.
        features: channels of the levels, from full size down; up to six.
        model: a ``model.pt`` of a pre-training, for ``pretrained=True``.

    Raises:
        InputError: for more levels than ``FlexibleUNet`` has.
    """
    channels = tuple(features[1:])
    if len(channels) > MOST_LEVELS:
        raise InputError(
            f"FlexibleUNet has {MOST_LEVELS} levels below full size, not {len(channels)}: {list(features)}"
        )

    class Registered(FlexibleEncoder, BaseEncoder):
        @classmethod
        def get_encoder_parameters(cls) -> list[dict[str, Any]]:
            own = {"features": tuple(features), "model": model}
            return [{"spatial_dims": 3, "in_channels": 1, "pretrained": False, **own}]

        @classmethod
        def num_channels_per_output(cls) -> list[tuple[int, ...]]:
            return [channels]

        @classmethod
        def num_outputs(cls) -> list[int]:
            return [len(channels)]

        @classmethod
        def get_encoder_names(cls) -> list[str]:
            return [name]

    FLEXUNET_BACKBONE.register_class(Registered)
