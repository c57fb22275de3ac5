# SPDX-License-Identifier: Apache-2.0

"""Pictures of the report."""

import numpy as np
import pytest
from PIL import Image
from scripts.evaluation.report import (
    as_volume,
    difference,
    embedding_figure,
    grid_pictures,
    label_centre,
    mosaic,
    outline_pictures,
    overlay,
    plane_pictures,
    shown_planes,
)
from support import SIZE, drawn, marker

pytestmark = pytest.mark.usefixtures("no_figure_is_left_open")


def test_overlay_and_difference():
    """Grey where images agree, green for the fixed one, magenta for the other; red brighter, blue darker."""
    fixed, other = np.array([[[0.5, 1.0, 0.0]]]), np.array([[[0.5, 0.0, 1.0]]])
    np.testing.assert_allclose(overlay(fixed, other)[0, 0], [[0.5, 0.5, 0.5], [0, 1, 0], [1, 0, 1]])
    agree, darker, brighter = difference(fixed, other)[0, 0]
    assert agree.min() > 0.95
    assert darker[2] > darker[0] + 0.2
    assert brighter[0] > brighter[2] + 0.2


def test_as_volume():
    """2D images become one axial slice, which is the only plane that is shown."""
    image = np.random.default_rng(0).random((9, 7))
    volume = as_volume(image)
    assert volume.shape == (9, 7, 1)
    assert volume.dtype == np.float32
    assert set(plane_pictures(volume)) == set(grid_pictures(np.zeros((2, 9, 7)))) == {"axial"}
    assert as_volume(np.zeros(SIZE)).shape == SIZE


def test_planes_have_true_proportions():
    """Width and height of a picture are in millimetres, all planes to one scale."""
    assert shown_planes((10, 20, 5), (1, 1, 4), 100) == {0: (100, 100), 1: (50, 100), 2: (50, 100)}
    for pictures in (
        plane_pictures(np.zeros((10, 20, 5)), (1, 1, 4), 100),
        plane_pictures(np.zeros((10, 20, 5, 3)), (1, 1, 4), 100),
        grid_pictures(np.zeros((3, 10, 20, 5)), (1, 1, 4), 100),
    ):
        sizes = {name: picture.size for name, picture in pictures.items()}
        assert sizes == {"sagittal": (100, 100), "coronal": (50, 100), "axial": (50, 100)}


def test_pictures_are_the_right_way_round():
    """The patient's right is on the left of the picture, grey or coloured; values beyond 0..1 are clipped."""
    volume = 3 * marker(0, True) - 1
    for shown in (volume, np.stack([volume] * 3, axis=-1)):
        pixels = np.asarray(plane_pictures(shown, pixels=SIZE[0])["axial"])
        assert pixels[:, :2].min() == 255
        assert pixels[:, 2:].max() == 0


def test_mosaic():
    """Rows and columns as large as their largest picture, smaller ones in the middle, black between."""
    white, wide = Image.new("RGB", (10, 20), "white"), Image.new("L", (30, 10), 255)
    whole = np.asarray(mosaic([[white, wide], [wide, white]], gap=4))
    assert whole.shape == (44, 64, 3)
    assert whole.sum() == 255 * 3 * (2 * 200 + 2 * 300)
    assert whole[:20, 10:20].all()
    assert not whole[20:24].any()
    assert not whole[:, 30:34].any()


@pytest.mark.parametrize("count", [3, 15, 28])
def test_embedding_figure(count):
    """One named colour per structure, different for each, for few and for many structures."""
    codes = np.repeat(np.arange(count) * 100, 4)
    figure = embedding_figure(np.random.default_rng(0).random((len(codes), 2)), codes, {100: "ventricle"})
    groups = figure.axes[0].collections
    assert len(groups) == count
    assert len({tuple(np.round(group.get_facecolor()[0], 4)) for group in groups}) == count
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[1] == "ventricle"
    assert labels[2] == "200"
    assert drawn(figure).std() > 5


def test_planes_go_through_the_labels():
    """A small structure at one end is what is shown, not the middle of the grid."""
    label = np.zeros((12, 10, 8))
    label[8:11, 1:4, 5:8] = 7
    assert label_centre(label) == [9, 2, 6]
    assert label_centre(0 * label) is None
    volume = label / 7
    assert all(np.asarray(picture).max() > 250 for picture in plane_pictures(volume, centre=[9, 2, 6]).values())
    assert all(np.asarray(picture).max() < 5 for picture in plane_pictures(volume).values())
    field = np.zeros((3, 12, 10, 8))
    field[0, :, 2] = 3
    straight, bent = grid_pictures(field)["coronal"], grid_pictures(field, centre=[9, 2, 6])["coronal"]
    assert (np.asarray(straight) != np.asarray(bent)).any()


def test_outlines():
    """Green the fixed scan's, magenta the other's, white where they coincide, the image elsewhere."""
    fixed, other = np.zeros((2, 12, 12, 12))
    fixed[2:6, 2:6] = 1
    other[2:6, 2:8] = 1
    pixels = np.asarray(outline_pictures(np.full((12, 12, 12), 0.5), fixed, other, pixels=120)["axial"]).astype(int)
    green = (pixels[..., 1] > 200) & (pixels[..., 0] < 100)
    magenta = (pixels[..., 1] < 100) & (pixels[..., 0] > 200)
    white = pixels.min(axis=-1) == 255
    assert green.any()
    assert magenta.any()
    assert white.sum() > green.sum()
    grey = ~(green | magenta | white)
    assert set(np.unique(pixels[grey])) == {102}
    assert grey.mean() > 0.8


def test_planes_have_true_proportions_and_radiological_sides() -> None:
    volume = np.zeros((10, 20, 30), dtype=np.float32)
    volume[5:, :, 15:] = 1  # right and superior
    pictures = plane_pictures(volume, (2, 1, 1), pixels=60)
    assert {name: picture.size for name, picture in pictures.items()} == {
        "sagittal": (40, 60),
        "coronal": (40, 60),
        "axial": (40, 40),
    }
    coronal = np.asarray(pictures["coronal"])
    assert coronal[5, 5] == 255
    assert coronal[5, -5] == coronal[-5, 5] == 0


def test_grid_has_the_size_of_the_planes() -> None:
    grids = grid_pictures(np.zeros((3, *SIZE)), (1, 2, 1))
    planes = plane_pictures(np.zeros(SIZE), (1, 2, 1))
    assert {n: p.size for n, p in grids.items()} == {n: p.size for n, p in planes.items()}
    assert np.asarray(grids["axial"]).min() < 100


def test_equal_images_overlay_to_grey() -> None:
    image = np.random.default_rng(0).random(SIZE)
    np.testing.assert_array_equal(np.ptp(overlay(image, image), axis=-1), 0)
