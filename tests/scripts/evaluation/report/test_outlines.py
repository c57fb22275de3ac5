# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
from scripts.evaluation.report.outlines import GREEN, MAGENTA, label_centre, outline_pictures


def test_outlines_are_white_only_where_the_structures_are_the_same():
    """A structure taken for another one looked like a perfect match."""
    fixed, carried = np.zeros((2, 9, 9, 9), dtype=np.int64)
    fixed[2:7, 2:7, 2:4], fixed[2:7, 2:7, 4:7] = 1, 2
    carried[2:7, 2:7, 2:7] = 1
    (picture,) = (outline_pictures(np.zeros((9, 9, 9)), fixed, carried, pixels=9)[name] for name in ["coronal"])
    shown = np.asarray(picture)[::-1]  # inferior first
    assert tuple(shown[2, 4]) == (255, 255, 255)  # the lower edge is of structure 1 in both
    assert tuple(shown[6, 4]) == MAGENTA  # the upper one of 2 and of 1
    assert tuple(shown[4, 4]) == GREEN  # between 1 and 2
    assert not shown[0].any()


def test_the_middle_of_what_is_labelled():
    label = np.zeros((5, 6, 7))
    assert label_centre(label) is None
    label[1:4, 2:4, 6] = 3
    assert label_centre(label) == [2, 2, 6]
