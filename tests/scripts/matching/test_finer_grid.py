# SPDX-License-Identifier: Apache-2.0
"""A match on a grid finer than the prepared one: same box, same map, same intensities, and a better answer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, EnsureTyped, ResizeWithPadOrCropd, Spacingd
from scipy.ndimage import gaussian_filter, shift
from scripts.errors import InputError
from scripts.matching import FinerGrid, MatchingInferer, world_match
from scripts.networks import (
    GVSL,
    GlobalMatchingHead,
    LocalMatchingHead,
    RestorationHead,
    UNetBackbone,
    ZMatchingHead,
)
from scripts.spatial import affine_displacement, resample, transform_points, warp
from scripts.transforms import FillPaddingd, scale_intensity

SIZE = [12, 10, 11]


def scan(moved: float = 0.0) -> np.ndarray:
    texture = gaussian_filter(np.random.default_rng(0).normal(size=(26, 22, 24)), 2)
    return shift(texture / texture.std(), (moved, 0, 0), order=1, mode="nearest")[None].astype(np.float32)


def prepared(volume: np.ndarray, spacing: float = 1.5, coarse: float = 3.0) -> tuple[MetaTensor, MetaTensor]:
    """A scan as a batch of one, prepared and in its own grid."""
    affine = torch.diag(torch.tensor([-spacing, spacing, spacing, 1.0], dtype=torch.float64))
    own = MetaTensor(torch.as_tensor(volume), affine=affine)
    steps = Compose(
        [
            FillPaddingd("image"),
            Spacingd("image", [coarse] * 3, mode="bilinear"),
            scale_intensity(["image"]),
            ResizeWithPadOrCropd("image", SIZE, mode="constant"),
            EnsureTyped("image", dtype=torch.float32),
        ]
    )
    image = steps({"image": own})["image"]
    return tuple(MetaTensor(of.as_tensor()[None], affine=of.affine[None], meta=of.meta) for of in (image, own))


@pytest.fixture
def network() -> GVSL:
    torch.manual_seed(0)
    features = (4, 8, 16)
    head = ZMatchingHead(
        GlobalMatchingHead(features, (2, 1), (8, 8)), LocalMatchingHead(features, (2, 1), (2, 1), (8, 8))
    )
    return GVSL(UNetBackbone(features=features), head, RestorationHead(4)).eval()


class TestGrid:
    def test_it_spans_the_box_of_the_prepared_one(self):
        image, own = prepared(scan())
        grid = FinerGrid.of(image, own, 0.5)
        assert grid is not None
        assert grid.factor == pytest.approx(2)
        assert grid.size == [24, 20, 22]
        corners = torch.tensor([[-0.5, 11.5], [-0.5, 9.5], [-0.5, 10.5]], dtype=torch.float64)
        finer = torch.tensor([[-0.5, 23.5], [-0.5, 19.5], [-0.5, 21.5]], dtype=torch.float64)
        torch.testing.assert_close(
            transform_points(grid.affine(image), finer), transform_points(image.affine[0].double(), corners)
        )

    @pytest.mark.parametrize(("spacing", "finest", "factor"), [(0.5, 0.5, 2.0), (0.5, 0.25, 4.0), (2.0, 0.25, 1.5)])
    def test_it_is_no_finer_than_the_scan_and_than_asked_for(self, spacing, finest, factor):
        grid = FinerGrid.of(*prepared(scan(), spacing), finest)
        assert grid is not None
        assert grid.factor == pytest.approx(factor)

    @pytest.mark.parametrize(("spacing", "finest"), [(3.0, 0.5), (2.7, 0.5), (1.0, 1.0)])
    def test_there_is_none_where_it_would_hardly_be_finer(self, spacing, finest):
        assert FinerGrid.of(*prepared(scan(), spacing), finest) is None

    def test_it_holds_no_more_voxels_than_allowed(self):
        grid = FinerGrid.of(*prepared(scan()), 0.5, 1.5**3 * 12 * 10 * 11)
        assert grid is not None
        assert grid.size == [18, 15, 16]
        assert FinerGrid.of(*prepared(scan()), 0.5, 1000) is None

    def test_intensities_are_those_of_the_prepared_image(self):
        image, own = prepared(scan())
        grid = FinerGrid.of(image, own, 0.5)
        finer = grid.image(image, own)
        # at the scan's own voxels, from which the prepared image was sampled
        again = resample(finer[0], grid.affine(image), torch.zeros(3, *SIZE), image.affine[0])
        inner = (slice(None), *[slice(2, -2)] * 3)
        assert np.corrcoef(again[inner].flatten(), image[0].as_tensor()[inner].flatten())[0, 1] > 0.97
        assert finer.min() >= 0
        assert finer.max() <= 1
        assert finer[..., 10, 10, 10] == pytest.approx(
            float(resample(finer[0], grid.affine(image), torch.zeros(3, 24, 20, 22), grid.affine(image))[0, 10, 10, 10])
        )

    def test_padding_is_filled_before_sampling(self):
        volume = 100 * scan() + 500
        volume[:, :, :, -3:] = -3024
        image, own = prepared(volume)
        finer = FinerGrid.of(image, own, 0.5).image(image, own)
        at_the_edge = finer[0, 0, 4:-4, 4:-4, 18:20]  # half a voxel from the padding
        assert at_the_edge.std() > 0.05
        assert at_the_edge.mean() > 0.1

    def test_a_map_is_the_same_one_on_both_grids(self):
        grid = FinerGrid.of(*prepared(scan()), 0.5)
        affine = torch.eye(3, 4)[None] + 0.05 * torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(0))
        whole = affine_displacement(affine, SIZE)
        finer = affine_displacement(grid.affine_map(affine), grid.size)
        torch.testing.assert_close(grid.coarser(finer, SIZE), whole, atol=1e-4, rtol=1e-4)
        inner = (slice(None), slice(None), *[slice(1, -1)] * 3)
        torch.testing.assert_close(grid.finer(whole)[inner], finer[inner], atol=1e-4, rtol=1e-4)


class TestInferer:
    @pytest.mark.parametrize("refine", [0, 12])
    def test_the_match_is_the_finer_one_everywhere(self, network, refine):
        (fixed, own), (moving, own_moving) = prepared(scan()), prepared(scan(2.0))
        with torch.no_grad():
            pred = MatchingInferer(refine, finest=0.5)(fixed, network, moving, own, own_moving)
        assert pred["finer_local_displacement"].shape == (1, 3, 24, 20, 22)
        data = {"image": fixed, "moving": moving, "pred": pred}
        match = world_match(data)
        coarse = {name: value for name, value in pred.items() if not name.startswith("finer")}
        points = transform_points(fixed.affine[0].double(), torch.tensor([[5.0, 7], [4, 6], [5, 3]]).double())
        difference = match(points) - world_match({**data, "pred": coarse})(points)
        assert difference.abs().max() < 1.5  # half a prepared voxel
        torch.testing.assert_close(pred["warped"], warp(moving.as_tensor(), pred["displacement"]))

    def test_refinement_on_the_scan_s_own_grid_finds_what_the_prepared_one_cannot_show(self):
        """The scan moved by 2 voxels of 1.5 mm, and a network that finds nothing."""

        def network(image, _):
            nothing = torch.zeros(1, 3, *SIZE)
            return {"affine": torch.eye(3, 4)[None], "local_displacement": nothing, "displacement": nothing}

        network.matching_head = None
        (fixed, own), (moving, own_moving) = prepared(scan()), prepared(scan(2.0))
        with torch.no_grad():
            matches = [
                world_match({"image": fixed, "moving": moving, "pred": pred})
                for pred in (
                    MatchingInferer(40)(fixed, network, moving),
                    MatchingInferer(40, finest=0.5)(fixed, network, moving, own, own_moving),
                )
            ]
        size = own.shape[2:]
        ncc = []
        for match in matches:
            warped = resample(
                own_moving[0].as_tensor(), own.affine[0], match.displacement(own.affine[0], size), own.affine[0]
            )
            inner = (0, *[slice(5, -5)] * 3)
            ncc.append(np.corrcoef(warped[inner].flatten(), own[0].as_tensor()[inner].flatten())[0, 1])
        assert ncc[1] > ncc[0]

    def test_without_the_scans_or_a_finer_grid_nothing_changes(self, network):
        (fixed, own), (moving, own_moving) = prepared(scan()), prepared(scan(2.0))
        with torch.no_grad():
            expected = network(fixed.as_tensor(), moving.as_tensor())
            for found in (
                MatchingInferer(finest=0.5)(fixed, network, moving),
                MatchingInferer(finest=1.0)(fixed, network, moving, own, own_moving),
            ):
                assert found.keys() == expected.keys()
                torch.testing.assert_close(torch.as_tensor(found["displacement"]), expected["displacement"])

    @pytest.mark.parametrize("finest", [0, -1, 2, "half"])
    def test_what_cannot_be_meant_is_refused(self, finest):
        with pytest.raises(InputError, match="finest"):
            MatchingInferer(finest=finest)
