# SPDX-License-Identifier: Apache-2.0
"""Preparation of a heart: its box is cut out of the scan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import CropForeground

from ..errors import InputError, check_numbers


def crop_to(mask: np.ndarray, margin: float, *images: MetaTensor) -> list[MetaTensor]:
    """
    Cut the box of a mask, and a margin around it as far as the scan goes, out of images. Nothing is resampled.

    Args:
        mask: ``(D, H, W)``, not empty.
        margin: millimetres on each side.
        images: ``(C, D, H, W)``, of the same grid.

    Returns:
        the boxes, whose affine matrices keep every voxel where it was.
    """
    voxels = np.ceil(margin / np.asarray(images[0].pixdim) - 1e-6).astype(int)
    crop = CropForeground(margin=voxels.tolist(), allow_smaller=True)
    box = crop.compute_bounding_box(torch.as_tensor(mask[None]))
    return [cast(MetaTensor, crop.crop_pad(image, *box)) for image in images]


@dataclass(frozen=True)
class CropToLabel:
    """
    Step of :class:`~scripts.preparation.Preparation`: the box of everything labelled. A scan without label is kept
    whole, for where the heart lies is not known then.

    Args:
        margin: millimetres around the box.
    """

    margin: float = 20.0

    def __post_init__(self) -> None:
        check_numbers({"margin": self.margin})

    def __call__(self, image: MetaTensor, label: MetaTensor | None) -> tuple[MetaTensor, MetaTensor | None]:
        """
        Args:
            image: ``(1, D, H, W)``.
            label: the same grid, or None.

        Returns:
            the box of both.

        Raises:
            InputError: for an empty label.
        """
        if label is None:
            return image, None
        mask = np.asarray(label[0]) != 0
        if not mask.any():
            raise InputError("has an empty label (background alone)")
        image, label = crop_to(mask, self.margin, image, label)
        return image, label
