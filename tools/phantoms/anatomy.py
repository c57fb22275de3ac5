# SPDX-License-Identifier: Apache-2.0

"""The table of structures: what is where, made of what, with which label, painted in which order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from . import heart, thorax
from .combine import intersect, offset, union
from .lung_vessels import grow
from .points import Array, Points, Shape, gated, shared


@dataclass(frozen=True)
class Structure:
    """A part of the body.

    Args:
        name: what it is.
        shape: where it is, in canonical mm.
        material: what it is made of, a key of the subject's Hounsfield units.
        label: its MM-WHS code, 0 for what is not labelled.
    """

    name: str
    shape: Shape
    material: str
    label: int = 0


@cache
def structures() -> tuple[Structure, ...]:
    """List all structures, each painted over those before it; a shape reaches under what covers its edge."""
    rng = np.random.default_rng(0)  # one fixed pattern: the vessels belong to the anatomy all subjects share
    arteries, veins = (
        gated(union(*(grow(root, thorax.LUNGS, 170, rng) for root in roots)), thorax.LUNGS)
        for roots in (
            ((44.0, -14.0, 22.0), (-54.0, -28.0, 22.0)),
            ((46.0, -22.0, 6.0), (44.0, -34.0, -20.0), (-54.0, -20.0, 14.0), (-54.0, -36.0, -18.0)),
        )
    )
    body, cage = thorax.BODY, thorax.CAGE
    return (
        Structure("skin", body, "muscle"),
        Structure("fat under the skin", offset(body, -2), "fat"),
        Structure("chest wall", intersect(offset(body, -7), union(thorax.WALL_MUSCLES, thorax.NECK)), "muscle"),
        Structure("back muscles", intersect(offset(body, -6), thorax.BACK_MUSCLES), "muscle"),
        *_bone("shoulder blades", thorax.SCAPULAE, 1.3),
        *_bone("collar bones", thorax.CLAVICLES, 2.0),
        *_bone("ribs", shared(gated(thorax.RIBS, thorax.RIB_SPACE)), 1.3),
        Structure("rib cartilages", gated(thorax.CARTILAGES, thorax.RIB_SPACE), "cartilage"),
        *_bone("sternum", thorax.STERNUM, 1.3),
        Structure("pleural fat", cage, "fat"),
        Structure("fat around the heart", offset(heart.HEART, 3.5), "fat"),
        Structure("diaphragm", intersect(cage, thorax.DOMES), "muscle"),
        Structure("belly fat", intersect(cage, offset(thorax.DOMES, -2.5)), "fat"),
        Structure("liver", intersect(cage, thorax.LIVER), "liver"),
        Structure("spleen", intersect(cage, thorax.SPLEEN), "spleen"),
        Structure("stomach", intersect(cage, thorax.STOMACH), "muscle"),
        Structure("stomach gas", thorax.STOMACH_GAS, "gas"),
        Structure("lungs", thorax.LUNGS, "lung"),
        Structure("lung arteries", arteries, "PA"),
        Structure("lung veins", veins, "LA"),
        Structure("discs", thorax.DISCS, "disc"),
        *_bone("vertebrae", thorax.VERTEBRAE, 1.5),
        Structure("spinal canal", thorax.CORD_SPACE, "fluid"),
        Structure("spinal cord", thorax.CORD, "cord"),
        Structure("oesophagus", thorax.OESOPHAGUS, "muscle"),
        Structure("airway walls", offset(thorax.AIRWAYS, 1.3), "muscle"),
        Structure("airways", thorax.AIRWAYS, "gas"),
        Structure("chamber walls", heart.CHAMBER_WALLS, "muscle"),
        Structure("veins", heart.VEINS, "vein"),
        Structure("arch branches", heart.ARCH_BRANCHES, "Ao"),
        Structure("pulmonary veins", union(*heart.PULMONARY_VEINS), "LA"),
        Structure("left atrium", heart.LA, "LA", 420),
        Structure("right atrium", heart.RA, "RA", 550),
        Structure("right ventricle", heart.RV, "RV", 600),
        Structure("pulmonary artery", heart.PULMONARY_ARTERY, "PA", 850),
        Structure("myocardium", heart.MYO, "Myo", 205),
        Structure("left ventricle", heart.LV, "LV", 500),
        Structure("aorta", heart.AORTA, "Ao", 820),
    )


def _bone(name: str, shape: Shape, cortex: float) -> tuple[Structure, Structure]:
    """A bone of a hard cortex, ``cortex`` mm thick, and marrow."""
    return Structure(name, shape, "cortex"), Structure(f"{name}, marrow", offset(shape, -cortex), "marrow")


def paint(
    points: Points, hounsfield: Mapping[str, float | Array], softness: float
) -> tuple[Array, npt.NDArray[np.uint16]]:
    """Paint the anatomy.

    Args:
        points: canonical coordinates of the voxel centres, (3, N).
        hounsfield: for each material its value in HU, one for all or one a voxel, (N,); ``"air"`` is around the body.
        softness: width in mm over which edges blend, as voxels hold parts of several structures.

    Returns:
        The image in HU, (N,), and the labels, which do not blend, (N,).
    """
    image = np.full(points.xyz.shape[1], hounsfield["air"], np.float32)
    labels = np.zeros(points.xyz.shape[1], np.uint16)
    for structure in structures():
        distance = structure.shape(points)
        share = np.clip(np.float32(0.5) - distance / np.float32(softness), 0, 1)
        image += share * (hounsfield[structure.material] - image)
        labels[distance < 0] = structure.label
    return image, labels
