# SPDX-License-Identifier: Apache-2.0
"""The three losses of GVSL and their weighted sum (paper, section 3.4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from ..errors import InputError, check_numbers
from ..spatial.displacement import inside_volume
from ..spatial.warp import warp
from .redundancy import redundancy


def box_sum(image: torch.Tensor, size: int) -> torch.Tensor:
    """
    Sum over a cubic window around each voxel, zeros outside.

    A product with a banded matrix of ones along each axis: several times faster on a CPU than separable convolutions
    and free of the rounding of running sums.

    Args:
        image: ``(B, C, D, H, W)``.
        size: odd edge of the window, in voxels.

    Returns:
        of the same shape.
    """
    for axis in range(2, image.dim()):
        index = torch.arange(image.shape[axis], device=image.device)
        band = ((index[:, None] - index).abs() <= size // 2).to(image.dtype)
        last = axis == image.dim() - 1
        image = image @ band if last else (band @ image.flatten(axis + 1)).reshape(image.shape)  # no axes to exchange
    return image


class LocalNCCLoss(nn.Module):
    """
    1 - mean squared local normalised cross-correlation.

    With ``masked``, the default, means, variances and the covariance of a window are over the voxels really inside the
    mask, and windows centred outside it do not count:
    ``1 - mean( (cov + e)^2 / ((var_a + e) (var_b + e)) )``. Two unrelated noises score ``1 / (voxels - 1)``; windows
    flat in both images count as equal, flat in one as unrelated; identical images give 0 whatever they show.

    Without it, the published form: zero-padded sums over the whole window, ``cross^2 / (var_a * var_b + e)``, which
    rewards any two images along the border.

    Always computed in float32 or better, also under autocast.

    Args:
        window: odd edge of the window, in voxels.
        epsilon: ``e``; a variance in the masked form (1e-5 is a standard deviation of 0.3 % of the intensity window), a
            product of summed variances in the published form.
        masked: which form.
    """

    def __init__(self, window: int = 9, epsilon: float = 1e-5, masked: bool = True) -> None:
        super().__init__()
        if window < 3 or window % 2 == 0:
            raise InputError(f"the NCC window must be odd and at least 3 voxels, not {window}")
        self.window, self.epsilon, self.masked = window, epsilon, masked

    def forward(self, warped: torch.Tensor, fixed: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """
        Args:
            warped: ``(B, C, D, H, W)``.
            fixed: ``(B, C, D, H, W)``.
            mask: ``(B, 1, D, H, W)``, where ``warped`` is known; None for everywhere. Only for the masked form.

        Returns:
            scalar between 0 (equal up to contrast and brightness of each window) and 1 (unrelated).
        """
        return 1 - self.per_image(warped, fixed, mask).mean()

    def per_image(self, warped: torch.Tensor, fixed: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """As :meth:`forward`, but the squared correlation (1 for equal images) of each image, ``(B,)``."""
        with torch.autocast(warped.device.type, enabled=False):
            dtype = torch.promote_types(torch.promote_types(warped.dtype, fixed.dtype), torch.float32)
            a, b = warped.to(dtype), fixed.to(dtype)
            if not self.masked:
                return self._published(a, b)
            inside = torch.ones_like(b[:, :1]) if mask is None else mask.to(dtype)
            count = box_sum(inside, self.window).clamp(min=1)
            a, b = a * inside, b * inside
            channels = a.shape[1]
            sums = box_sum(torch.cat([a, b, a * a, b * b, a * b], dim=1), self.window) / count
            mean_a, mean_b, square_a, square_b, product = sums.split(channels, dim=1)
            # no clamp at 0: where a window is flat, variance and covariance of equal images must round alike
            variance_a = (square_a - mean_a * mean_a + self.epsilon).clamp(min=self.epsilon / 2)
            variance_b = (square_b - mean_b * mean_b + self.epsilon).clamp(min=self.epsilon / 2)
            covariance = product - mean_a * mean_b + self.epsilon
            squared = (covariance * covariance / (variance_a * variance_b) * inside).flatten(1)
            return squared.sum(dim=1) / (inside.flatten(1).sum(dim=1) * channels).clamp(min=1)

    def _published(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        voxels = self.window ** (a.dim() - 2)
        sums = box_sum(torch.cat([a, b, a * a, b * b, a * b], dim=1), self.window)
        sum_a, sum_b, square_a, square_b, product = sums.split(a.shape[1], dim=1)
        variance_a = (square_a - sum_a * sum_a / voxels).clamp(min=0)
        variance_b = (square_b - sum_b * sum_b / voxels).clamp(min=0)
        cross = product - sum_a * sum_b / voxels
        return (cross * cross / (variance_a * variance_b + self.epsilon)).flatten(1).mean(dim=1)


class SmoothnessLoss(nn.Module):
    """
    Squared forward differences of a displacement field, mean per axis, averaged over the axes.

    Forward differences see a checkerboard, which central differences (``monai.losses.DiffusionLoss``) do not.
    """

    def forward(self, displacement: torch.Tensor) -> torch.Tensor:
        """
        Args:
            displacement: ``(B, N, D, H, W)`` in voxels.

        Returns:
            scalar, in squared voxels per voxel.
        """
        field = displacement.float()
        steps = [(axis, field.shape[axis] - 1) for axis in range(2, field.dim()) if field.shape[axis] > 1]
        pairs = [(field.narrow(axis, 1, n), field.narrow(axis, 0, n)) for axis, n in steps]
        return torch.stack([functional.mse_loss(ahead, here) for ahead, here in pairs]).mean()


class GVSLLoss(nn.Module):
    """
    ``matching_weight * NCC(A->B, B) + smoothness_weight * smoothness + restoration_weight * MSE(A', A)``, and where its
    weight is not 0 ``redundancy_weight * redundancy`` of the features, which the paper does not have.

    The maps were found from what the network saw; the losses look at the clean images. Where the prediction holds a
    ``backward`` match, each term is the mean of the two ways.

    Args:
        matching: see :class:`LocalNCCLoss`.
        smoothness: see :class:`SmoothnessLoss`.
        matching_weight: weight of the similarity; 0 for restoration only.
        smoothness_weight: weight of the smoothness.
        restoration_weight: weight of the restoration; 0 for matching only.
        redundancy_weight: weight of the mean :func:`~scripts.losses.redundancy` of the levels' features.
        redundancy_levels: of how many levels, f^g and f^l first; None for all.
        smooth_whole: smoothness of the fused displacement instead of the deformable head's alone.
        corrupted: which image the prediction's ``restored`` restores, "moving" or "fixed", as given to the network.
    """

    def __init__(
        self,
        matching: nn.Module | None = None,
        smoothness: nn.Module | None = None,
        matching_weight: float = 1.0,
        smoothness_weight: float = 1.0,
        restoration_weight: float = 1.0,
        redundancy_weight: float = 0.0,
        redundancy_levels: int | None = None,
        smooth_whole: bool = False,
        corrupted: str = "moving",
    ) -> None:
        super().__init__()
        self.matching = matching or LocalNCCLoss()
        self.smoothness = smoothness or SmoothnessLoss()
        self.weights = {
            "matching": matching_weight,
            "smoothness": smoothness_weight,
            "restoration": restoration_weight,
            "redundancy": redundancy_weight,
        }
        for name, weight in self.weights.items():
            if weight < 0:
                raise InputError(f"{name}_weight must not be negative: {weight}")
        if redundancy_levels is not None:
            check_numbers({"redundancy_levels": redundancy_levels}, lowest=1, whole=True)
        self.redundancy_levels = redundancy_levels
        self.field = "displacement" if smooth_whole else "local_displacement"
        self.corrupted = corrupted
        self.terms: dict[str, float] = {}

    def forward(self, prediction: dict, clean: torch.Tensor) -> torch.Tensor:
        """
        Args:
            prediction: what :class:`~scripts.networks.GVSL` returns for two images; its ``features`` are taken out,
                else they would outlive their gradients.
            clean: the clean fixed and moving images, stacked as channels, ``(B, 2 C, D, H, W)``.

        Returns:
            scalar; its unweighted terms are left in ``terms``, for logging.
        """
        fixed, moving = clean.chunk(2, dim=1)
        ways = [self._one_way(prediction, fixed, moving)]
        if "backward" in prediction:
            ways.append(self._one_way(prediction["backward"], moving, fixed))
        terms = {name: torch.stack([way[name] for way in ways]).mean() for name in self.weights}
        self.terms = {name: float(term.detach()) for name, term in terms.items()}
        return torch.stack([weight * terms[name] for name, weight in self.weights.items()]).sum()

    def _one_way(self, found: dict, fixed: torch.Tensor, moving: torch.Tensor) -> dict[str, torch.Tensor]:
        displacement = found["displacement"]
        restorable = moving if self.corrupted == "moving" else fixed
        inside = inside_volume(displacement.detach())
        return {
            "matching": self.matching(warp(moving, displacement), fixed, inside),
            "smoothness": self.smoothness(found[self.field]),
            "restoration": (found["restored"].float() - restorable).square().mean(),
            "redundancy": self._redundancy(found.pop("features")),
        }

    def _redundancy(self, levels: Sequence[torch.Tensor]) -> torch.Tensor:
        wanted = torch.is_grad_enabled() and self.weights["redundancy"] > 0  # else only logged
        with torch.set_grad_enabled(wanted):
            return torch.stack([redundancy(level).mean() for level in levels[: self.redundancy_levels]]).mean()
