# SPDX-License-Identifier: Apache-2.0

"""Random volumes and affine maps."""

import numpy as np
import torch
from scipy import ndimage


def noise(*shape, seed=0):
    """Double-precision random numbers of 0..1."""
    return torch.as_tensor(np.random.default_rng(seed).random(shape))


def smooth_volume(size, sigma=2.0, seed=0):
    """An asymmetric smooth double-precision image of about 0..1."""
    image = ndimage.gaussian_filter(np.random.default_rng(seed).random(size), sigma)
    return (image - image.min()) / (image.max() - image.min())


def random_parameters(dims, count=3, seed=0):
    """Rotation, scale and shear as an affine head gives them, all different."""
    rng = np.random.default_rng(seed)
    angles = rng.uniform(-0.35, 0.35, (count, 3 if dims == 3 else 1))
    return angles, rng.uniform(0.75, 1.25, (count, dims)), rng.uniform(-0.17, 0.17, (count, dims * (dims - 1)))
