# SPDX-License-Identifier: Apache-2.0
"""Matching at inference time: the network's answer, optionally refined for the pair at hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import Inferer
from torch.nn import functional

from ..errors import InputError
from ..losses.local_ncc import LocalNCCLoss
from ..losses.smoothness import SmoothnessLoss
from ..spatial.displacement import inside_volume
from ..spatial.warp import fuse, warp


class MatchingInferer(Inferer):
    """
    Runs the network on a pair and, where asked to, goes on with some optimisation steps on this pair's displacement
    field (instance optimisation). The correction lives on a grid of half the resolution, which keeps it smooth.

    Args:
        refine: optimisation steps; 0 takes the network's answer.
        learning_rate: of Adam, in voxels.
        smoothness_weight: weight of the smoothness of the whole local displacement.
        ncc: the similarity.
    """

    def __init__(
        self,
        refine: int = 0,
        learning_rate: float = 0.1,
        smoothness_weight: float = 3.0,
        ncc: LocalNCCLoss | None = None,
    ) -> None:
        if refine < 0:
            raise InputError(f"refine is a number of steps, 0 or more, not {refine}")
        self.refine, self.learning_rate, self.smoothness_weight = refine, learning_rate, smoothness_weight
        self.ncc, self.smoothness = ncc or LocalNCCLoss(), SmoothnessLoss()

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """
        Args:
            inputs: the fixed image, ``(B, C, D, H, W)``.
            network: see :class:`~scripts.networks.GVSL`.
            args: the moving image, of the same shape; without it one image is restored.

        Returns:
            what the network returns, with ``local_displacement``, ``displacement`` and ``warped`` refined.
        """
        found = network(inputs, *args, **kwargs)
        if not self.refine or not isinstance(found, dict):
            return found
        fixed, moving = (torch.as_tensor(image).detach().float() for image in (inputs, args[0]))
        affine, start = found["affine"].detach(), found["local_displacement"].detach()
        size = start.shape[2:]
        with torch.enable_grad():
            correction = start.new_zeros(*start.shape[:2], *(max(2, n // 2) for n in size)).requires_grad_()
            optimizer = torch.optim.Adam([correction], lr=self.learning_rate)
            for _ in range(self.refine):
                optimizer.zero_grad()
                local = self._refined(start, correction)
                displacement = fuse(affine, local)
                inside = inside_volume(displacement.detach())
                loss = self.ncc(warp(moving, displacement), fixed, inside)
                (loss + self.smoothness_weight * self.smoothness(local)).backward()
                optimizer.step()
        local = self._refined(start, correction.detach())
        displacement = fuse(affine, local)
        return {
            **found,
            "local_displacement": local,
            "displacement": displacement,
            "warped": warp(moving, displacement),
        }

    @staticmethod
    def _refined(start: torch.Tensor, correction: torch.Tensor) -> torch.Tensor:
        mode = "trilinear" if start.dim() == 5 else "bilinear"
        return start + functional.interpolate(correction, size=start.shape[2:], mode=mode, align_corners=True)
