# SPDX-License-Identifier: Apache-2.0

"""One subject's anatomy: the map from its world to canonical coordinates, an affine after a diffeomorphism."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, map_coordinates

from .heart import CENTRE
from .points import Array

STEP = 8.0
"""Spacing of the nodes that carry the deformation, mm."""

LOW, HIGH = np.array([-184.0, -152.0, -168.0]), np.array([184.0, 152.0, 168.0])
"""The box they fill, mm; constant beyond."""

SCALES = ((48.0, 4.2), (26.0, 1.7))
"""Smoothness (mm) and strength (mm, standard deviation of each component) of the random velocities."""

SQUARINGS = 6


@dataclass(frozen=True)
class Deformation:
    """A map phi from world to canonical coordinates: phi(x) = matrix (x + u(x)) + shift.

    Args:
        field: u at the nodes, mm, shape (3, X, Y, Z).
        matrix: shape (3, 3).
        shift: mm, shape (3,).
    """

    field: Array
    matrix: npt.NDArray[np.float64]
    shift: npt.NDArray[np.float64]

    def __call__(self, world: npt.NDArray[np.floating]) -> Array:
        """Map world coordinates, mm, shape (3, N), to canonical ones."""
        x = world + _sample(self.field, world)
        # written out rather than a matrix product: BLAS may round differently with another number of threads
        rows = [m[0] * x[0] + m[1] * x[1] + m[2] * x[2] + s for m, s in zip(self.matrix, self.shift, strict=True)]
        return np.stack(rows).astype(np.float32)


def nodes() -> npt.NDArray[np.float64]:
    """World coordinates of the nodes, mm, shape (3, X, Y, Z)."""
    axes = [np.arange(low, high + STEP / 2, STEP) for low, high in zip(LOW, HIGH, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"))


def _sample(values: Array, world: npt.NDArray[np.floating]) -> Array:
    """Interpolate node values, (3, X, Y, Z), at world coordinates in mm, (3, ...)."""
    low = LOW.reshape(3, *[1] * (world.ndim - 1))
    at = (world - low) / STEP
    return np.stack([map_coordinates(v, at, output=np.float32, order=1, mode="nearest") for v in values])


def exponential(velocity: Array) -> Array:
    """Integrate a stationary velocity field over unit time, by scaling and squaring.

    Args:
        velocity: at the nodes, mm, shape (3, X, Y, Z).

    Returns:
        The displacement of the flow, same shape; x + u(x) is a diffeomorphism.
    """
    x = nodes()
    u = velocity / np.float32(2**SQUARINGS)
    for _ in range(SQUARINGS):
        u = u + _sample(u, x + u)
    return u


def random_velocity(rng: np.random.Generator) -> Array:
    """Draw what sets a subject apart: smooth noise, the size and tilt of the heart, the depth of the breath.

    Args:
        rng: the subject's stream for anatomy.

    Returns:
        The velocity at the nodes, mm, shape (3, X, Y, Z).
    """
    x = nodes()
    velocity = np.zeros(x.shape, np.float32)
    for smoothness, strength in SCALES:
        noise = rng.standard_normal(x.shape, dtype=np.float32)
        noise = np.stack([gaussian_filter(n, smoothness / STEP, mode="reflect") for n in noise])
        velocity += noise * np.float32(strength / noise.std())

    swell, tilt, roll = rng.uniform(-0.14, 0.14), rng.uniform(-0.2, 0.2), rng.uniform(-0.15, 0.15)
    breath = rng.uniform(-11, 11)
    arm = x - np.reshape(CENTRE, (3, 1, 1, 1))
    near = np.exp(-(arm**2).sum(0) / (2 * 50.0**2))
    velocity[0] += near * (swell * arm[0] + tilt * arm[2] - roll * arm[1])
    velocity[1] += near * (swell * arm[1] + roll * arm[0])
    velocity[2] += near * (swell * arm[2] - tilt * arm[0])
    velocity[2] += breath * np.exp(-((x[2] + 75) ** 2) / (2 * 45.0**2))
    return velocity


def random_deformation(rng: np.random.Generator) -> Deformation:
    """Draw a subject's map from world to canonical coordinates.

    Args:
        rng: the subject's stream for anatomy.
    """
    angles = np.deg2rad(rng.normal(0, 2.5, 3).clip(-6, 6))
    scale = 1 / (rng.uniform(0.92, 1.06) * rng.uniform(0.965, 1.035, 3))
    matrix = np.diag(scale)
    for axis, angle in enumerate(angles):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[[i, j, i, j], [i, j, j, i]] = [np.cos(angle), np.cos(angle), -np.sin(angle), np.sin(angle)]
        matrix = matrix @ turn
    return Deformation(exponential(random_velocity(rng)), matrix, rng.uniform(-5, 5, 3))
