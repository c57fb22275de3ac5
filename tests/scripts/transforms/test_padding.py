# SPDX-License-Identifier: Apache-2.0

"""Padding does not count in percentiles, and is not mixed into its neighbours; everything else stays as it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, ScaleIntensityRangePercentilesd, Spacingd
from scripts.transforms import FillPaddingd, find_padding, scale_intensity

SIZE = (40, 40, 24)
PLACE = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in SIZE], indexing="ij"))
OUTSIDE = PLACE[0] ** 2 + PLACE[1] ** 2 > 1
BODY = (PLACE[0] / 0.8) ** 2 + (PLACE[1] / 0.6) ** 2 < 1


def ct(padding: float | None = None, subject: int = 0) -> torch.Tensor:
    """A body in air, Hounsfield units; beyond the circle of reconstruction the padding."""
    image = np.where(BODY, 40.0, -1000.0) + 10 * np.random.default_rng(subject).normal(size=SIZE)
    image[(PLACE[0] - 0.3) ** 2 + PLACE[1] ** 2 < 0.02] = 110
    image[(PLACE[0] + 0.3) ** 2 + PLACE[1] ** 2 < 0.01] = 700
    if padding is not None:
        image[OUTSIDE] = padding
    return torch.as_tensor(np.round(image)[None].astype(np.float32))


def prepared(image: torch.Tensor, pixdim: float = 1.7) -> np.ndarray:
    """As the configurations prepare a scan."""
    spacing = Spacingd("image", (pixdim,) * 3, mode="bilinear")
    steps = Compose([FillPaddingd("image"), spacing, scale_intensity(["image"])])
    return np.asarray(steps({"image": MetaTensor(image.clone(), affine=torch.eye(4))})["image"])


@pytest.mark.parametrize("value", [-1500, -2000, -2048, -3024, -32768])
class TestPaddedCt:
    def test_the_body_keeps_its_contrast(self, value):
        """Before, the lower percentile was the padding's: liver and fat differed by 6 % of the range, not by 16 %."""
        plain, padded = prepared(ct()), prepared(ct(value))
        inner = np.s_[:, 6:-6, 6:-6]
        assert np.abs(plain[inner] - padded[inner]).max() < 0.02

    def test_without_the_preparing_steps(self, value):
        scale = scale_intensity(["image"])
        plain, padded = (np.asarray(scale({"image": image})["image"]) for image in (ct(), ct(value)))
        assert np.abs(plain - padded)[0, ~OUTSIDE].max() < 0.02

    def test_nothing_is_mixed_at_the_border(self, value):
        """Filled with the nearest measured value, the lowest of the air."""
        filled = FillPaddingd("image")({"image": ct(value)})["image"]
        assert filled.min() > -1100
        assert torch.equal(filled[0][~OUTSIDE], ct(value)[0][~OUTSIDE])


@pytest.mark.parametrize("value", [-3024, 63536])
def test_percentiles_are_those_of_the_measured_voxels(value):
    """63536 is padding read without its sign."""
    image, ends = ct(value), find_padding(np.asarray(ct(value)))
    assert [end.get("value") for end in ends] == ([value, None] if value < 0 else [None, value])
    measured = np.asarray(image)[0][~OUTSIDE]
    low, high = np.percentile(measured, [0.5, 99.5])
    scaled = scale_intensity(["image"])(FillPaddingd("image")({"image": MetaTensor(image)}))["image"]
    expected = np.clip((measured - low) / (high - low), 0, 1)
    assert np.abs(np.asarray(scaled)[0][~OUTSIDE] - expected).max() < 5e-3


def brain(anatomy) -> np.ndarray:
    """An extracted brain: zeros around, and values that come down to them."""
    image = anatomy(0) - anatomy(0).min() + 1
    image[:5], image[:, :5], image[..., -4:] = 0, 0, 0
    return image


@pytest.mark.parametrize("change", [lambda v: v, np.round, lambda v: v - v.min(), lambda v: np.maximum(v, 0)])
def test_ordinary_images_are_scaled_as_before(anatomy, change):
    """Bit for bit, a background of zeros or not."""
    theirs = ScaleIntensityRangePercentilesd("image", 0.5, 99.5, 0, 1, clip=True)
    for volume in (change(anatomy(0)), change(brain(anatomy))):
        image = torch.as_tensor(volume[None])
        assert find_padding(np.asarray(image)) == ({}, {})
        assert FillPaddingd("image")({"image": image})["image"] is image
        assert torch.equal(scale_intensity(["image"])({"image": image})["image"], theirs({"image": image})["image"])


def test_ct_scaled_by_percentiles_is_told_once(anatomy, capsys):
    """Of MR nothing is said."""
    scale = scale_intensity(["image"])
    for image in (ct(), ct(-2000), torch.as_tensor(brain(anatomy)[None])):
        scale({"image": MetaTensor(image, meta={"filename_or_obj": "ct.nii"})})
    assert capsys.readouterr().out.count("ct.nii looks like CT (Hounsfield units)") == 1
    scale({"image": torch.as_tensor(10 * anatomy(1)[None])})
    scale_intensity(["image"], "window")({"image": ct()})
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("usual", "others"),
    [(0, [100, 300]), (255, [0, 200]), (7, [7.5, 7.5]), (-3, [-9, 4])],
    ids=["a small part cut out", "saturated", "one voxel", "both sides"],
)
def test_images_of_nearly_one_value_are_scaled_by_the_others(usual, others):
    """Before, both percentiles were that value, and the network saw the image's own numbers: 400 instead of 1."""
    image = torch.full((1, 20, 20, 20), float(usual))
    image[0, 9, 9, 9], image[0, 12, 9, 9] = others
    scaled = scale_intensity(["image"])({"image": image})["image"]
    assert (float(scaled.min()), float(scaled.max())) == (0, 1)
    assert (scaled[0, 9, 9, 9] - scaled[0, 0, 0, 0]).sign() == np.sign(others[0] - usual)


def test_whole_numbers_without_sign_have_no_padding_by_it():
    """A difference of 1 is not one of 65535."""
    image = np.random.default_rng(0).integers(990, 1000, (1, 20, 20, 20), dtype=np.uint16)
    image[:, :5] = 1000
    assert find_padding(image) == find_padding(image.astype(np.float32)) == ({}, {})
