# SPDX-License-Identifier: Apache-2.0
"""The batch of a training step on its way to the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monai.engines import PrepareBatchExtraInput

from ..networks.known_map import seeds_of


class PrepareKnownMaps(PrepareBatchExtraInput):
    """
    MONAI's ``PrepareBatchExtraInput``, but of which pairs the map is known stays with the host, which decides by it
    what is computed: on a GPU it would have to wait for the answer.

    Args:
        extra_keys: see ``PrepareBatchExtraInput``; ``known`` among them becomes a tuple of B numbers, see
            :class:`~scripts.networks.KnownMap`.
    """

    def __call__(
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor, tuple, dict]:
        """
        Args:
            batchdata: tensors by name.
            device: where they are moved to.
            non_blocking: see ``torch.Tensor.to``.
            kwargs: further arguments of it.

        Returns:
            image, label, what else the network is given, an empty dictionary.
        """
        batch = dict(batchdata)
        if "known" in batch:
            batch["known"] = seeds_of(batch["known"], batch["known_displacement"])
        return super().__call__(batch, device, non_blocking, **kwargs)
