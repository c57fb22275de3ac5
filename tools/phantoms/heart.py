# SPDX-License-Identifier: Apache-2.0

"""The heart and the great vessels, in canonical millimetres (R, A, S), the thorax centre at the origin."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .combine import intersect, offset, union
from .points import shared
from .shapes import ellipsoid, half_space, tube

LABELS = {500: "left ventricle", 600: "right ventricle", 420: "left atrium", 550: "right atrium"}
LABELS |= {205: "myocardium", 820: "aorta", 850: "pulmonary artery"}
"""The MM-WHS codes and their names."""

CENTRE = (-16.0, 10.0, -14.0)
"""The middle of the heart, mm."""


def _frame() -> npt.NDArray[np.float64]:
    """The left ventricle's axes: to the apex (left, front, down), to the septum (right, front), and across; (3, 3)."""
    apex = np.array([-0.66, 0.60, -0.45])
    apex /= np.linalg.norm(apex)
    septum = np.array([0.74, 0.62, -0.20])
    septum -= (septum @ apex) * apex
    septum /= np.linalg.norm(septum)
    return np.stack([apex, septum, np.cross(apex, septum)])


AXES = _frame()
BASE = np.array([-24.0, 4.0, -9.0])  # the mitral valve


def _at(along: float, septal: float = 0.0, across: float = 0.0) -> list[float]:
    """A point given in the left ventricle's axes from its base, mm."""
    return list(BASE + np.array([along, septal, across]) @ AXES)


LV = shared(intersect(ellipsoid(_at(16), (51, 23, 23), AXES), half_space(_at(-3), -AXES[0])))
MYO = shared(intersect(ellipsoid(_at(16), (59.5, 32.5, 32.5), AXES), half_space(_at(-1), -AXES[0])))
OUTFLOW = tube((*_at(34, 30), 14), (-12, 51, -12, 13), (-16, 48, 4, 12), (-19, 43, 13, 11.5))
RV = shared(union(ellipsoid(_at(27, 25, 2), (45, 27, 35), AXES), OUTFLOW, k=8))
PULMONARY_VEINS = (
    tube((12, -16, 4, 7), (32, -20, 4, 6), (46, -22, 6, 5)),
    tube((12, -20, -12, 7), (30, -28, -16, 6), (44, -34, -20, 5)),
    tube((-28, -16, 6, 7), (-42, -20, 10, 6), (-54, -20, 14, 5)),
    tube((-28, -22, -10, 7), (-42, -30, -14, 6), (-54, -36, -18, 5)),
)
APPENDAGE = tube((-32, -8, 4, 9), (-44, 6, 8, 8), (-46, 20, 8, 5))
LA = shared(
    intersect(
        union(ellipsoid((-8, -14, -4), (31, 19, 22)), APPENDAGE, *PULMONARY_VEINS, k=8),
        ellipsoid((-8, -8, -2), (42, 48, 36)),  # as in MM-WHS, the veins count as atrium where they begin only
    )
)
RA = shared(
    union(
        ellipsoid((27, 8, -17), (20, 25, 28)),
        tube((22, 26, 0, 10), (12, 36, 8, 8), (4, 42, 10, 5)),  # its appendage, in front of the aorta
        tube((16, 16, -20, 17), (4, 27, -22, 15)),  # the tricuspid valve
        k=10,
    )
)
AORTA = shared(
    union(
        tube((-9, 15, 0, 12), (-4, 15, 6, 15.5), (4, 18, 15, 14.5), (11, 19, 28, 14.5), (10, 13, 46, 14)),
        tube(
            (10, 13, 46, 14), (-1, 2, 59, 13), (-14, -12, 62, 12.5), (-22, -27, 57, 12), (-26, -40, 43, 12),
            (-27, -46, 20, 11.5), (-26, -47, -20, 11), (-20, -44, -60, 10.5), (-12, -38, -100, 10), (-8, -32, -165, 9),
        ),
        k=2,
    )
)  # fmt: skip
PULMONARY_ARTERY = shared(
    union(
        tube((-19, 43, 13, 12.5), (-24, 30, 25, 13.5), (-24, 14, 33, 13), (-27, 0, 36, 12)),
        tube((-25, 10, 33, 12), (-12, -1, 33, 11), (8, -6, 31, 10.5), (28, -9, 27, 9.5), (44, -14, 22, 8)),
        tube((-25, 6, 34, 12), (-36, -8, 37, 10.5), (-48, -20, 33, 9), (-54, -28, 22, 7.5)),
        k=5,
    )
)

VEINS = shared(
    union(
        tube((25, 4, 0, 10), (25, 3, 30, 10), (24, 4, 60, 9.5), (25, 6, 82, 9), (34, 2, 110, 8), (40, -4, 160, 8)),
        tube((24, 6, 76, 8), (6, 20, 84, 7), (-16, 16, 94, 7), (-34, 2, 112, 8), (-40, -4, 160, 8)),
        tube((24, -4, -30, 12), (22, -8, -60, 11), (18, -14, -100, 11), (14, -20, -165, 10)),
        k=4,
    )
)
ARCH_BRANCHES = shared(
    union(
        tube((2, 4, 66, 7), (8, -2, 84, 6.5), (20, -8, 104, 5.5), (28, -10, 165, 4)),
        tube((-9, -6, 68, 5), (-12, -8, 90, 4), (-20, -10, 165, 4)),
        tube((-17, -16, 66, 6), (-22, -20, 90, 5), (-40, -20, 108, 5), (-90, -10, 118, 4.5)),
    )
)
CHAMBER_WALLS = shared(
    union(
        offset(union(RV, RA, k=6), 2.5), offset(union(LA, *PULMONARY_VEINS, AORTA, PULMONARY_ARTERY), 1.8), VEINS, k=2
    )
)
"""The thin walls of all but the left ventricle."""

HEART = shared(union(MYO, RV, RA, LA, AORTA, PULMONARY_ARTERY, VEINS, k=12))
"""All of it, the grooves filled: with a skin of fat, what the lungs must go round."""
