# SPDX-License-Identifier: Apache-2.0

"""Pictures: the right way round, in proportion, drawn and closed without error."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.collections import LineCollection
from scripts.plots import PLANES, curves_figure, draw_grid, matching_figure, plane
from support import SIZE, drawn, marker

pytestmark = pytest.mark.usefixtures("no_figure_is_left_open")


@pytest.mark.parametrize(
    ("towards", "normal", "side"),
    [
        (0, 2, "left"),  # axial: the patient's right is on the left
        (1, 2, "top"),  # axial: anterior up
        (0, 1, "left"),  # coronal: the patient's right is on the left
        (2, 1, "top"),  # coronal: superior up
        (1, 0, "left"),  # sagittal: the face looks to the left
        (2, 0, "top"),  # sagittal: superior up
    ],
)
def test_plane_orientation(towards, normal, side):
    """A marker at the patient's right, front and top is where a radiologist expects it; its opposite is opposite."""
    bright, dark = (plane(marker(towards, end), normal) for end in (True, False))
    ends = {"left": (np.s_[:, :2], np.s_[:, -2:]), "top": (np.s_[:2], np.s_[-2:])}[side]
    assert bright[ends[0]].all()
    assert bright.sum() == bright[ends[0]].size
    assert dark[ends[1]].all()
    assert dark.sum() == dark[ends[1]].size


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_plane_shape_and_index(axis):
    """Rows are the later axis, columns the earlier one; the middle slice unless another is asked for."""
    volume = np.broadcast_to(np.arange(SIZE[axis]).reshape([-1 if k == axis else 1 for k in range(3)]), SIZE)
    columns, rows = (SIZE[k] for k in range(3) if k != axis)
    assert plane(volume, axis).shape == (rows, columns)
    assert (plane(volume, axis) == SIZE[axis] // 2).all()
    assert (plane(volume, axis, 1) == 1).all()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_grid_lies_on_the_image(axis):
    """A grid line goes where the sampled voxel is shown: a shift towards the right moves it to the left, and so on."""
    columns, rows = (k for k in range(3) if k != axis)
    shift = np.zeros((3, *SIZE), np.float32)
    shift[columns], shift[rows] = 2, 1
    corners = []
    for field in (np.zeros_like(shift), shift):
        figure, axes = plt.subplots()
        draw_grid(axes, field, axis, step=1)
        (lines,) = [c for c in axes.collections if isinstance(c, LineCollection)]
        corners.append(np.concatenate(lines.get_segments()))
        assert axes.get_xlim() == (-0.5, SIZE[columns] - 0.5)
        assert axes.get_ylim() == (SIZE[rows] - 0.5, -0.5)
        plt.close(figure)
    np.testing.assert_allclose(corners[1] - corners[0], np.broadcast_to([-2, -1], corners[0].shape))
    np.testing.assert_allclose(corners[0].min(axis=0), 0)
    np.testing.assert_allclose(corners[0].max(axis=0), [SIZE[columns] - 1, SIZE[rows] - 1])
    # the voxel with index (2, 1) of the two axes is drawn at the place where plane() shows it
    volume = np.zeros(SIZE)
    volume[tuple({columns: 2, rows: 1}.get(k, slice(None)) for k in range(3))] = 1
    row, column = np.argwhere(plane(volume, axis))[0]
    assert (SIZE[columns] - 1 - 2, SIZE[rows] - 1 - 1) == (column, row)
    assert (np.abs(corners[0] - [column, row]).sum(axis=1) < 1e-6).any()


def test_matching_figure():
    """Three planes of eight pictures, proportions from the spacing, shown values those of the planes."""
    rng = np.random.default_rng(0)
    volumes = dict(
        zip(
            ("fixed", "moving", "warped", "corrupted", "restored"),
            rng.random((5, *SIZE)).astype(np.float32),
            strict=True,
        )
    )
    spacing = (1.0, 2.0, 4.0)
    figure = matching_figure(
        displacement=rng.normal(size=(3, *SIZE)).astype(np.float32), spacing=spacing, title="pair 1", **volumes
    )
    assert len(figure.axes) == 24
    titles = [axes.get_title() for axes in figure.axes[:8]]
    assert titles[:3] == ["fixed", "moving", "warped"]
    assert [figure.axes[8 * row].get_ylabel() for row in range(3)] == list(PLANES)
    for row in range(3):
        horizontal, vertical = (spacing[k] for k in range(3) if k != row)
        assert figure.axes[8 * row].get_aspect() == vertical / horizontal
        shown = [axes.images[0].get_array() if axes.images else None for axes in figure.axes[8 * row : 8 * row + 8]]
        expected = [
            *(volumes[name] for name in ("fixed", "moving", "warped")),
            volumes["moving"] - volumes["fixed"],
            volumes["warped"] - volumes["fixed"],
            None,
            volumes["corrupted"],
            volumes["restored"],
        ]
        for picture, volume in zip(shown, expected, strict=True):
            if volume is not None:
                np.testing.assert_allclose(picture, plane(volume, row))
    assert drawn(figure).std() > 10
    figure = matching_figure(displacement=np.zeros((3, *SIZE)), **{**volumes, "corrupted": None})
    assert [axes.get_title() for axes in figure.axes[:7]] == [title for title in titles if title != "moving, corrupted"]
    drawn(figure)


def test_curves_figure():
    """One panel per group that has values, epochs without a value left out, _before dashed."""
    history = [
        {"epoch": 1, "matching": 0.9, "smoothness": 0.1, "restoration": 0.2},
        {"epoch": 2, "matching": 0.8, "smoothness": 0.1, "restoration": 0.1, "ncc_before": 0.1, "ncc_after": 0.3},
        {"epoch": 3, "matching": 0.7, "ncc_before": 0.1, "ncc_after": 0.4, "new_term": 3.0, "learning_rate": 0.1},
    ]
    figure = curves_figure(history)
    assert [axes.get_title() for axes in figure.axes] == ["losses (training)", "NCC (held-back pairs)"]
    lines = {line.get_label(): line for axes in figure.axes for line in axes.lines}
    np.testing.assert_allclose(lines["matching"].get_xydata(), [[1, 0.9], [2, 0.8], [3, 0.7]])
    np.testing.assert_allclose(lines["ncc after"].get_xydata(), [[2, 0.3], [3, 0.4]])
    np.testing.assert_allclose(lines["new term"].get_xydata(), [[3, 3.0]])
    assert "learning rate" not in lines
    assert lines["ncc before"].get_linestyle() == "--"
    assert drawn(figure).std() > 5
