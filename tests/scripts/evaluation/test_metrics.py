# SPDX-License-Identifier: Apache-2.0

"""Measures of a match, against numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ignite.engine import Engine
from scripts.evaluation import (
    MatchingQuality,
    folded_percentage,
    label_dice,
    loss_averages,
    matching_metrics,
    pair_averages,
)
from scripts.losses import GVSLLoss, LocalNCCLoss
from scripts.spatial import inside_volume, warp


def numpy_dice(prediction, reference):
    """Mean Dice over the structures of either map, set by set."""
    codes = (set(prediction.ravel()) | set(reference.ravel())) - {0}
    found = [
        2
        * np.sum((prediction == code) & (reference == code))
        / (np.sum(prediction == code) + np.sum(reference == code))
        for code in codes
    ]
    return np.mean(found) if found else 1.0


@settings(max_examples=40, deadline=None)
@given(data=st.data(), dims=st.integers(2, 3))
def test_label_dice_against_numpy(data, dims):
    """Any whole-number codes, structures missing in one map, in one item or everywhere, single-code and empty maps."""
    codes = data.draw(st.lists(st.sampled_from([0, 1, 205, 420, 421, 500, 850, 30000]), min_size=1, max_size=4))
    seed = data.draw(st.integers(0, 1000))
    rng = np.random.default_rng(seed)
    size = (3, 1, *(3, 2, 4)[:dims])
    maps = [rng.choice(codes, size), rng.choice(codes[: 1 + seed % len(codes)], size)]
    found = label_dice(*(torch.as_tensor(m, dtype=torch.float32) for m in maps))
    assert found.shape == (3,)
    np.testing.assert_allclose(found.numpy(), [numpy_dice(a, b) for a, b in zip(*maps, strict=True)], atol=1e-6)


@pytest.mark.parametrize(
    ("prediction", "reference", "dice"),
    [
        ([0, 0, 0, 0], [0, 0, 0, 0], 1),
        ([500, 500, 500, 500], [500, 500, 500, 500], 1),
        ([500, 0, 0, 0], [0, 0, 0, 0], 0),
        ([0, 0, 0, 0], [500, 0, 0, 0], 0),
        ([500, 600, 0, 0], [500, 0, 0, 0], 0.5),
        ([500, 500, 850, 0], [500, 0, 850, 0], (2 / 3 + 1) / 2),
        ([420, 421, 0, 0], [421, 420, 0, 0], 0),
    ],
)
def test_label_dice_by_hand(prediction, reference, dice):
    """Empty and full maps, structures in one map only, neighbouring codes."""
    maps = [torch.tensor(values, dtype=torch.float32).reshape(1, 1, 2, 2, 1) for values in (prediction, reference)]
    assert label_dice(*maps).item() == pytest.approx(dice)


def test_label_dice_items_do_not_mix():
    """A structure of one image of the batch does not count for another."""
    first = torch.tensor([[1, 1, 0, 0], [2, 2, 0, 0]]).reshape(2, 1, 2, 2)
    second = torch.tensor([[1, 1, 0, 0], [2, 0, 0, 0]]).reshape(2, 1, 2, 2)
    np.testing.assert_allclose(label_dice(first, second).numpy(), [1, 2 / 3], atol=1e-6)


@pytest.mark.parametrize("size", [(10, 9, 8), (10, 9)])
def test_folded_percentage(size):
    """0 for the identity and smooth fields, 100 for a mirrored axis, the share of the folded slab, item by item."""
    n = len(size)
    fields = torch.zeros(4, n, *size)
    ramp = torch.arange(float(size[0])).reshape(-1, *[1] * (n - 1))
    fields[1, 0] = 9 - 2 * ramp
    fields[2, 0] = 0.4 * torch.sin(ramp)
    fields[3, 0, 4], fields[3, 0, 6] = 3, -3  # crossing over at 5; its neighbours feel at most (0 - 3) / 2 - a fold too
    found = folded_percentage(fields)
    jacobian = 1 + np.gradient(fields[3, 0].numpy(), axis=0)
    np.testing.assert_allclose(found.numpy(), [0, 100, 0, 100 * np.mean(jacobian <= 0)], atol=1e-4)
    assert found[3] > 0


def batch(labels, size=(12, 11, 10)):
    """A batch of two pairs and a match by a shift of 1.7 voxels, right for the first pair."""
    rng = np.random.default_rng(0)
    moving = torch.as_tensor(rng.random((2, 1, *size)), dtype=torch.float32)
    field = torch.zeros(2, 3, *size)
    field[:, 0] = 1.7
    fixed = warp(moving, field)
    fixed[1] = torch.as_tensor(rng.random((1, *size)), dtype=torch.float32)
    data = {"image": fixed, "moving": moving, "pred": {"displacement": field, "warped": warp(moving, field)}, "a": 1}
    if labels:
        codes = torch.tensor([0.0, 500.0, 850.0])
        data["moving_label"] = codes[(moving * 3).long()]
        data["image_label"] = torch.zeros_like(moving)
        data["image_label"][:, :, :-2] = data["moving_label"][:, :, 2:]  # the nearest voxel of 1.7 is 2
    return data


@pytest.mark.parametrize("labels", [False, True])
def test_matching_quality(labels):
    """Before and after, per pair, ``(B, 1)``: the right match scores 1, unrelated images about 0; nothing is lost."""
    data = batch(labels)
    given_keys = set(data)
    found = MatchingQuality(LocalNCCLoss(9))(data)
    names = [*MatchingQuality.names, *(MatchingQuality.label_names if labels else ())]
    assert set(found) == given_keys | set(names)
    assert set(data) == given_keys
    assert all(found[name].shape == (2, 1) for name in names)
    assert found["ncc_after"][0].item() == pytest.approx(1, abs=1e-3)
    assert found["ncc_after"][1] < 0.02
    assert found["ncc_before"].max() < 0.05
    assert (found["folded_percentage"] == 0).all()
    inside = inside_volume(data["pred"]["displacement"])
    expected = LocalNCCLoss(9).per_image(data["pred"]["warped"], data["image"], inside)
    torch.testing.assert_close(found["ncc_after"][:, 0], expected)
    if labels:
        np.testing.assert_allclose(found["dice_after"].numpy(), 1)
        before = [numpy_dice(data["moving_label"][k].numpy(), data["image_label"][k].numpy()) for k in range(2)]
        np.testing.assert_allclose(found["dice_before"][:, 0].numpy(), before, atol=1e-6)
        assert max(before) < 0.6


def test_matching_quality_needs_both_labels():
    """One label map alone gives no Dice."""
    data = batch(True)
    del data["moving_label"]
    assert "dice_after" not in MatchingQuality()(data)


def test_averages_over_batches():
    """The averages run over all pairs of all batches, whatever the batches' sizes, as plain numbers."""
    outputs = [{"ncc_after": torch.tensor([[1.0], [2.0], [3.0]])}, {"ncc_after": torch.tensor([[10.0]])}]
    engine = Engine(lambda _, output: output)
    for name, metric in pair_averages(["ncc_after"]).items():
        metric.attach(engine, name)
    metrics = engine.run(outputs).metrics
    assert metrics["ncc_after"] == 4
    assert isinstance(metrics["ncc_after"], float)


def test_matching_metrics():
    """Label measures only where every scan has a label; the key measure is left to the key metric."""
    assert set(matching_metrics([{"label": 1}, {"label": 2}])) == {
        "ncc_before", "folded_percentage", "dice_before", "dice_after",
    }  # fmt: skip
    assert set(matching_metrics([{"label": 1}, {}])) == {"ncc_before", "folded_percentage"}


def test_loss_averages():
    """Each term of the loss is averaged over the epoch under its own name."""
    loss = GVSLLoss()

    def step(_, value):
        return {"losses": {name: 10**power * value for power, name in enumerate(loss.terms)}}

    engine = Engine(step)
    for name, metric in loss_averages(loss).items():
        metric.attach(engine, name)
    averages = {"matching": 3, "smoothness": 30, "restoration": 300, "redundancy": 3000}
    assert engine.run([1.0, 2.0, 6.0]).metrics == averages
