# SPDX-License-Identifier: Apache-2.0

"""ConvexAdam's engine, with its own handcrafted descriptors and with this bundle's features in their place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from scripts.errors import InputError
from scripts.matching import world_match
from scripts.networks import Levels, LocalMatchingHead
from scripts.spatial import WorldMatch, affine_displacement, warp
from torch.nn import functional

from .bundle_match import BundleMatch, Pair

ENGINE = {"grid_sp": 4, "disp_hw": 3, "selected_niter": 80, "grid_sp_adam": 2, "lambda_weight": 0.6, "verbose": False}
"""Settings of ``convex_adam_pt``."""
SCALE = 1.0
"""Of this bundle's unit-length descriptors, beside which the engine's regularisation is weighed."""

Features = Callable[..., tuple[torch.Tensor, torch.Tensor]]


class ConvexAdam:
    """
    Siebert et al., "ConvexAdam", 2024 (package ``convexAdam``): correlation, coupled convex smoothing, then Adam; from
    this bundle's affine map, on the grid that its network sees.

    Args:
        ours: gives the affine map and the network; with ``finest`` 1, on the grid that the network sees.
        settings: of ``convex_adam_pt``, see :data:`ENGINE`.
        scale: see :data:`SCALE`.
    """

    def __init__(self, ours: BundleMatch, settings: dict[str, Any] = ENGINE, scale: float = SCALE) -> None:
        self.ours, self.settings, self.scale = ours, settings, scale

    def with_mind(self, pair: Pair) -> torch.Tensor:
        """MIND-SSC, the package's own."""
        return self._run(pair, None)

    def with_ours(self, pair: Pair) -> torch.Tensor:
        """The descriptors of the local matching head at full size."""
        return self._run(pair, self._features)

    @torch.no_grad()
    def _features(
        self, img_fixed: torch.Tensor, img_moving: torch.Tensor, **_: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """In place of ``extract_features``: two images ``(D, H, W)`` to two descriptors ``(1, C, D, H, W)``."""
        network, found = self.ours.network, []
        head = network.matching_head.local_matching
        if not isinstance(head, LocalMatchingHead):
            raise InputError("convexadam_ours needs the default local matching, whose descriptors it takes")
        for image in (img_fixed, img_moving):
            levels = Levels.of(network.backbone, image[None, None].float())
            shapes = head.shapes(levels, [1])[1]
            found.append(self.scale * functional.normalize(shapes.float(), dim=1))
        return found[0], found[1]

    def _run(self, pair: Pair, features: Features | None) -> torch.Tensor:
        from convexAdam import convex_adam_MIND as engine

        match = world_match(self.ours.match(pair))
        fixed, moving = (torch.as_tensor(pair.batch[key]).float() for key in ("image", "moving"))
        size, affine = fixed.shape[2:], match.affine[None].float()
        aligned = warp(moving, affine_displacement(affine, size))
        own = engine.extract_features if features is None else features
        with mock.patch.object(engine, "extract_features", own):
            voxels = engine.convex_adam_pt(
                fixed[0, 0], aligned[0, 0], dtype=torch.float32, device=torch.device("cpu"), **self.settings
            )
        local = torch.from_numpy(voxels).float().movedim(-1, 0)
        whole = WorldMatch(match.affine, local, match.fixed_affine, match.moving_affine)
        return whole.displacement(pair.fixed.affine, pair.fixed.image.shape[1:])
