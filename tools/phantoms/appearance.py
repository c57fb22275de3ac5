# SPDX-License-Identifier: Apache-2.0

"""One scan's appearance: contrast, tissues, noise, bias, voxels and orientation; it knows nothing of the anatomy."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from .points import Array

FIELD_OF_VIEW = (304.0, 244.0, 264.0)
"""What a scan covers, left-right, front-back and head-feet, mm."""

TISSUES = {
    "air": (-1000, 0), "gas": (-985, 8), "lung": (-850, 25), "fat": (-100, 8), "muscle": (52, 6),
    "cartilage": (110, 15), "cortex": (620, 90), "marrow": (190, 35), "disc": (85, 10),
    "fluid": (12, 4), "cord": (38, 4),
}  # fmt: skip
"""Materials contrast agent does not reach: mean and standard deviation over subjects, HU."""

PHASES = {
    "none": (0.1, (40, 52), (40, 52), (40, 52), (48, 58), (52, 62), (46, 54)),
    "arterial": (0.45, (280, 430), (110, 300), (60, 260), (90, 125), (60, 80), (90, 160)),
    "pulmonary": (0.2, (140, 260), (300, 480), (320, 600), (70, 95), (55, 65), (50, 80)),
    "venous": (0.25, (145, 200), (145, 200), (140, 200), (85, 112), (100, 125), (105, 135)),
}
"""Contrast phases: probability, then ranges in HU of left and right heart, veins, myocardium, liver and spleen."""


@dataclass(frozen=True)
class Appearance:
    """How a subject was scanned.

    Args:
        hounsfield: HU of each material.
        spacing: voxel size along R, A, S, mm.
        shape: voxels along R, A, S.
        centre: world coordinates of the middle of the scan, mm.
        axcodes: directions the stored axes point to, such as ``"LPS"``.
        blur: standard deviation of the point spread along R, A, S, voxels.
        noise: standard deviation, HU, and its correlation, voxels.
        cupping: share of the signal lost at the middle of the body.
        tilt: share of the signal gained from one end of the scan to the other, along R, A, S.
    """

    hounsfield: dict[str, float]
    spacing: tuple[float, float, float]
    shape: tuple[int, int, int]
    centre: tuple[float, float, float]
    axcodes: str
    blur: tuple[float, float, float]
    noise: tuple[float, float]
    cupping: float
    tilt: tuple[float, float, float]


def draw_hounsfield(rng: np.random.Generator) -> dict[str, float]:
    """Draw a contrast phase and the HU of all materials in it."""
    values = {name: rng.normal(mean, deviation) for name, (mean, deviation) in TISSUES.items()}
    phase = rng.choice(list(PHASES), p=[row[0] for row in PHASES.values()])
    left, right, vein, muscle, liver, spleen = (rng.uniform(*limits) for limits in PHASES[phase][1:])
    mixing = 0.3 if phase == "none" else 6.0
    values |= {name: left + rng.normal(0, mixing) for name in ("LV", "LA", "Ao")}
    values |= {name: right + rng.normal(0, mixing) for name in ("RV", "RA", "PA")}
    return values | {"vein": vein, "Myo": muscle, "liver": liver, "spleen": spleen}


def draw_appearance(rng: np.random.Generator, nominal: float) -> Appearance:
    """Draw how a subject is scanned.

    Args:
        rng: the subject's stream for appearance.
        nominal: voxel size all spacings are drawn around, mm.
    """
    pixel, slices = round(nominal * rng.uniform(0.85, 1.15), 3), round(nominal * rng.uniform(0.8, 1.5), 3)
    width, depth, height = FIELD_OF_VIEW
    sharpness = rng.uniform(0.15, 0.5)
    order, signs = rng.permutation(3), rng.integers(0, 2, 3)
    return Appearance(
        hounsfield=draw_hounsfield(rng),
        spacing=(pixel, pixel, slices),
        shape=(ceil(width / pixel), ceil(depth / pixel), ceil(height / slices)),
        centre=(round(rng.uniform(-6, 6), 1), round(rng.uniform(-6, 6), 1), round(rng.uniform(-6, 6), 1)),
        axcodes="".join(("RL", "AP", "SI")[axis][sign] for axis, sign in zip(order, signs, strict=True)),
        blur=(sharpness, sharpness, rng.uniform(0.1, 0.4)),
        noise=(6 * (26 / 6) ** rng.uniform(), rng.uniform(0.35, 0.7)),
        cupping=rng.uniform(0, 0.03),
        tilt=(rng.normal(0, 0.008), rng.normal(0, 0.008), rng.normal(0, 0.008)),
    )


def grid_affine(appearance: Appearance) -> npt.NDArray[np.float64]:
    """The affine, (4, 4), from voxels along R, A, S to world coordinates in mm."""
    spacing, shape = np.asarray(appearance.spacing), np.asarray(appearance.shape)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = np.asarray(appearance.centre) - spacing * (shape - 1) / 2
    return affine


def _texture(rng: np.random.Generator, shape: tuple[int, int, int], correlation: float) -> Array:
    """Noise of unit variance, correlated over ``correlation`` voxels."""
    noise = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), correlation)
    return noise / noise.std()


def materials(rng: np.random.Generator, appearance: Appearance) -> dict[str, float | Array]:
    """The HU of all materials, those that are not even as one value a voxel, (N,).

    Args:
        rng: the subject's stream for noise.
        appearance: how it is scanned.
    """
    values: dict[str, float | Array] = dict(appearance.hounsfield)
    height = np.linspace(-1, 1, appearance.shape[1], dtype=np.float32)[:, None]
    for name, grain, sag in (("lung", 22, 35), ("marrow", 45, 0), ("fat", 7, 0)):
        # the lungs of someone lying on the back are denser behind
        uneven = _texture(rng, appearance.shape, 0.8) * np.float32(grain) - np.float32(sag) * height
        values[name] = (np.float32(appearance.hounsfield[name]) + uneven).ravel()
    return values


def scan(rng: np.random.Generator, image: Array, appearance: Appearance) -> npt.NDArray[np.int16]:
    """Turn a painted image into a scan: blur, bias, noise and whole HU.

    Args:
        rng: the subject's stream for noise.
        image: HU along R, A, S, shape (X, Y, Z).
        appearance: how it is scanned.
    """
    r, a, s = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in image.shape), indexing="ij", sparse=True)
    bias = appearance.cupping * (np.minimum(r**2 + a**2, 1) - 1)
    bias = bias + sum(t * axis for t, axis in zip(appearance.tilt, (r, a, s), strict=True))
    signal = (gaussian_filter(image, appearance.blur) + 1000) * (1 + bias) - 1000  # so that air stays air
    level, correlation = appearance.noise
    noisy = signal + np.float32(level) * _texture(rng, appearance.shape, correlation)
    return np.rint(np.clip(noisy, -1024, 3071)).astype(np.int16)
