# SPDX-License-Identifier: Apache-2.0
"""Matching at inference time: the network's answer, optionally refined for the pair at hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import Inferer

from ..errors import InputError
from ..spatial.warp import affine_displacement, voxel_grid, warp
from .refinement import Refinement


class MatchingInferer(Inferer):
    """
    Runs the network on a pair and, where asked to, goes on with it for this pair alone (see
    :class:`~scripts.matching.Refinement`).

    Args:
        refine: largest number of steps on the images' own grid, with twice as many on grids of half and a quarter of
            the size before; 0 takes the network's answer.
        window: edge of the windows of the local NCC, in voxels.
    """

    def __init__(self, refine: int = 0, window: int = 5) -> None:
        if refine < 0:
            raise InputError(f"refine is a number of steps, 0 or more, not {refine}")
        self.refine = Refinement([2 * refine, 2 * refine, refine], [4, 2, 1], window) if refine else None

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
        if self.refine is None or not isinstance(found, dict):
            return found
        fixed, moving = (torch.as_tensor(image).detach().float() for image in (inputs, args[0]))
        affine = found["affine"].detach().float()
        frame = affine_displacement(affine, fixed.shape[2:])
        displacement = self.refine(fixed, moving, found["displacement"].detach(), frame)
        return {
            **found,
            "local_displacement": in_affine_frame(affine, displacement),
            "displacement": displacement,
            "warped": warp(moving, displacement),
        }


def in_affine_frame(affine: torch.Tensor, displacement: torch.Tensor) -> torch.Tensor:
    """
    The displacement ``u`` for which ``A(p + u(p))`` is a whole map: the inverse of :func:`~scripts.spatial.fuse`.

    Args:
        affine: ``(B, N, N + 1)``.
        displacement: of the whole map, ``(B, N, D, H, W)`` in voxels.

    Returns:
        ``(B, N, D, H, W)`` in voxels.
    """
    grid = voxel_grid(displacement.shape[2:], displacement)
    reached = (grid + displacement).flatten(2) - affine[:, :, -1:]
    return torch.linalg.solve(affine[:, :, :-1], reached).reshape(displacement.shape) - grid
