# SPDX-License-Identifier: Apache-2.0

"""The chest around the heart: wall, bones, airways, lungs and the organs under the diaphragm; canonical millimetres."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .combine import bend, intersect, mirror, offset, outside, stacked, union
from .heart import ARCH_BRANCHES, HEART
from .points import Array, Points, shared
from .shapes import cylinder, ellipsoid, half_space, loft, tube

PITCH = 26.0
"""From one vertebra, and one rib, to the next, mm."""

# z, centre y, half width, half depth
BODY = shared(
    loft(
        [(-170, -10, 128, 100), (-50, -10, 131, 103), (20, -12, 132, 100), (70, -16, 131, 93), (105, -22, 121, 82),
         (135, -30, 104, 68), (170, -34, 88, 58)],
        2.6,
    )
)  # fmt: skip
CAGE = shared(
    loft(
        [(-170, -8, 104, 78), (-90, -8, 108, 81), (-40, -8, 107, 80), (10, -10, 103, 77), (45, -15, 94, 71),
         (75, -21, 80, 60), (98, -29, 61, 46), (114, -35, 40, 31), (124, -39, 18, 16), (130, -40, 4, 4)],
        2.3,
    )
)  # fmt: skip
"""The inside of the rib cage."""

SPINE_CURVE = [(-170, -50), (-80, -58), (-20, -62), (40, -64), (90, -55), (130, -41), (170, -30)]
"""z and y of the middle of the vertebral bodies."""


VERTEBRAE = shared(
    bend(
        stacked(
            union(
                cylinder((0, 0, 0), 17, 14, 10.5),
                mirror(tube((9, -10, 3, 4.5), (13, -20, 2, 5), (10, -27, 0, 4.5), (0, -33, -2, 4))),  # the arch
                mirror(tube((12, -22, 2, 5), (31, -27, 3, 4))),  # transverse processes
                mirror(cylinder((11, -24, 0), 4.5, 4.5, 11.5)),  # joints
                ellipsoid((0, -36, -3), (3.2, 9, 11)),  # the spinous process
                k=4,
            ),
            PITCH,
            0.0,
        ),
        SPINE_CURVE,
    )
)
DISCS = bend(cylinder((0, 0, 0), 16, 13), SPINE_CURVE)
CORD_SPACE = bend(cylinder((0, -21, 0), 9, 7.5), SPINE_CURVE)
CORD = bend(cylinder((0, -21, 0), 5.5, 4.5), SPINE_CURVE)
SPINE = shared(bend(cylinder((0, -4, 0), 19, 19), SPINE_CURVE))
BACK_MUSCLES = bend(mirror(union(cylinder((19, -31, 0), 18, 11), cylinder((34, -32, 0), 13, 9), k=6)), SPINE_CURVE)


def _rib_position(points: Points) -> tuple[Array, Array, Array]:
    """Where points lie with respect to the ribs.

    Returns:
        The angle round the chest (0 at the spine, 1 at the sternum), the height over the nearest rib's centre line
        (mm) and the distance from the inside of the cage (mm), each of shape (N,).
    """
    x, y, z = points.xyz
    angle = (np.arctan2(np.abs(x), -(y + 10)) / np.pi).astype(np.float32)
    # ribs fall as they come forward, then their cartilages climb to the sternum
    drop = 105 * np.sin(np.minimum(angle / 0.78, 1) * np.pi / 2) ** 1.5 - 220 * np.maximum(angle - 0.78, 0)
    height = np.mod(z + drop - 6 + PITCH / 2, PITCH) - PITCH / 2
    return angle, height.astype(np.float32), CAGE(points)


def _ribs(points: Points, first: float, last: float) -> Array:
    """The part of all the ribs between two angles round the chest, flat in cross-section."""
    angle, height, depth = _rib_position(points)
    bar = (np.hypot((depth - 6) / np.float32(3.6), height * np.float32(0.8) / np.float32(5.8)) - 1) * np.float32(3.6)
    return np.maximum(bar, np.maximum(first - angle, angle - last) * np.float32(200)).astype(np.float32)


# near the top of the cage, and above it, there is no wall for ribs to follow
RIB_SPACE = intersect(offset(CAGE, 12), offset(BODY, -7), half_space((0, 0, 114), (0, 0, 1)))
RIBS = intersect(RIB_SPACE, lambda points: _ribs(points, 0.07, 0.79))
CARTILAGES = intersect(RIB_SPACE, lambda points: _ribs(points, 0.785, 0.965))
STERNUM = shared(
    tube(
        (0, 45, 84, 5.5),
        (0, 55, 62, 5.5),
        (0, 64, 30, 5),
        (0, 74, -10, 5),
        (0, 78, -42, 4.5),
        (0, 77, -58, 2.5),
        flat=3,
    )
)
CLAVICLES = shared(mirror(tube((17, 46, 82, 7), (40, 44, 94, 6), (70, 24, 106, 6), (104, 6, 114, 7))))
BLADE_AXES: npt.NDArray[np.float64] = np.array([[0.86, 0.5, 0.0], [-0.5, 0.86, 0.0], [0.0, 0.0, 1.0]])
BLADE_CENTRE = (83, -66, 52)
SCAPULAE = shared(
    mirror(
        union(
            ellipsoid(BLADE_CENTRE, (27, 3.2, 58), BLADE_AXES),
            tube((64, -86, 72, 4), (84, -84, 84, 4.5), (102, -68, 98, 6)),  # the spine of the blade
            tube((104, -54, 70, 5), (106, -46, 96, 9)),
            k=4,
        )
    )
)
WALL_MUSCLES = union(
    offset(CAGE, 11.5),
    mirror(ellipsoid(BLADE_CENTRE, (34, 15, 72), BLADE_AXES)),
    mirror(ellipsoid((52, 62, 44), (46, 9, 46), [[0.93, -0.37, 0], [0.34, 0.87, 0.35], [-0.13, -0.33, 0.93]])),
    mirror(ellipsoid((104, -30, 10), (9, 34, 90))),
    mirror(ellipsoid((88, 4, 112), (44, 34, 30))),
    k=5,
)
NECK = ellipsoid((0, -26, 150), (52, 46, 52))

TRACHEA = tube((0, -10, 165, 8.5), (1, -12, 120, 8.5), (4, -20, 70, 8.5), (4, -24, 46, 9))
AIRWAYS = shared(
    union(
        TRACHEA,
        tube((4, -24, 46, 7.5), (18, -26, 32, 7), (32, -27, 20, 6), (44, -32, 4, 4.5), (52, -40, -20, 3)),
        tube((20, -26, 31, 5), (40, -24, 34, 4.5), (52, -24, 44, 3)),
        tube((3, -24, 46, 7), (-16, -28, 30, 6.5), (-36, -32, 19, 6), (-48, -38, 2, 4.5), (-56, -46, -22, 3)),
        tube((-36, -32, 19, 5), (-48, -24, 22, 4), (-58, -14, 32, 3)),
        k=3,
    )
)
OESOPHAGUS = tube(
    (-3, -24, 165, 6), (-4, -32, 80, 6), (-4, -40, 40, 6), (-7, -41, -10, 6), (-12, -34, -50, 6.5), (-30, -10, -84, 7)
)

DOMES = shared(
    union(
        ellipsoid((50, -2, -150), (70, 86, 97)),
        ellipsoid((-56, -2, -150), (62, 84, 88)),
        ellipsoid((-16, 24, -150), (72, 60, 101)),
        k=14,
    )
)
"""What the diaphragm covers."""

LIVER = intersect(
    offset(DOMES, -3.5),
    union(ellipsoid((52, 0, -120), (62, 84, 90)), ellipsoid((-8, 36, -98), (58, 38, 40)), k=12),
)
SPLEEN = intersect(offset(DOMES, -4), ellipsoid((-80, -42, -112), (26, 40, 38)))
STOMACH = shared(intersect(offset(DOMES, -5), ellipsoid((-54, 14, -112), (36, 44, 40))))
STOMACH_GAS = intersect(offset(STOMACH, -3), half_space((0, 22, 0), (0, -1, 0)))

MEDIASTINUM = shared(
    union(
        offset(HEART, 3.5),
        offset(union(TRACHEA, OESOPHAGUS, ARCH_BRANCHES, k=14), 3),
        SPINE,
        ellipsoid((-3, 44, 34), (9, 26, 52)),  # between the front edges of the lungs
        ellipsoid((0, -12, 80), (23, 29, 54)),
        k=9,
    )
)
LUNGS = shared(
    intersect(offset(CAGE, -1.5), outside(MEDIASTINUM), outside(DOMES), half_space((0, 0, -116), (0, 0, -1)))
)
