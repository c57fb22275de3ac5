# SPDX-License-Identifier: Apache-2.0

"""Pairs: always two subjects, reproducible with any workers, ranks and restarts."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.transforms import Compose, Lambdad, Randomizable
from scripts.data import DrawSampler, PairDataset
from scripts.errors import InputError
from scripts.transforms import RandAffineElasticd, RandBezierIntensity, RandEachd, RandInpaint, RandLocalShuffle
from torch.utils.data import DataLoader


def scans(subjects, size=(8, 7, 6), label=False):
    """One small random image per entry."""
    rng = np.random.default_rng(0)
    made = []
    for subject in subjects:
        scan = {"image": torch.as_tensor(rng.random((1, *size)), dtype=torch.float32), "subject": subject}
        made.append({**scan, "label": (scan["image"] > 0.5).float()} if label else scan)
    return made


def augmentation():
    """Random spatial and appearance transforms of all kinds."""
    corruption = [RandLocalShuffle(0.8), RandBezierIntensity(0.9), RandInpaint()]
    return Compose([RandAffineElasticd(("image", "moving")), RandEachd(("image", "moving"), corruption)])


def assert_same(one, other):
    """Equal dictionaries of tensors and names, to the last bit."""
    assert set(one) == set(other) == {"image", "moving", "image_name", "moving_name"}
    for key in one:
        if key.endswith("_name"):
            assert one[key] == other[key]
        else:
            torch.testing.assert_close(one[key], other[key], atol=0, rtol=0)


@settings(max_examples=25, deadline=None)
@given(subjects=st.lists(st.sampled_from("abcd"), min_size=2, max_size=9), seed=st.integers(0, 2**31))
def test_never_the_same_subject(subjects, seed):
    """However the scans are spread over subjects, a pair is of two different ones, and every scan gets its turn."""
    data = [{"image": torch.zeros(1), "subject": subject} for subject in subjects]
    if len(set(subjects)) < 2:
        with pytest.raises(InputError, match="two or more subjects"):
            PairDataset(data)
        return
    pairs = PairDataset(data, seed=seed)
    drawn = [pairs.indices(n)[:2] for n in range(200)]
    assert all(subjects[fixed] != subjects[moving] for fixed, moving in drawn)
    assert {fixed for fixed, _ in drawn} == set(range(len(subjects)))


def test_pairs_are_drawn_evenly():
    """All ordered pairs of different subjects are about equally frequent."""
    pairs = PairDataset(scans("abcd"))
    counts = np.zeros((4, 4))
    for n in range(2400):
        counts[pairs.indices(n)[:2]] += 1
    assert (np.diag(counts) == 0).all()
    assert (np.abs(counts[~np.eye(4, dtype=bool)] - 200) < 60).all()


def test_draw_depends_on_seed_and_number_only():
    """Order of access, length and number of data sets do not matter; seed and number do."""
    data = scans("aabbcc")
    first, second = PairDataset(data, None, augmentation()), PairDataset(data, None, augmentation(), length=3)
    forwards = [first[n] for n in (0, 1, 2, 50)]
    backwards = [second[n] for n in (50, 2, 1, 0)][::-1]
    for one, other in zip(forwards, backwards, strict=True):
        assert_same(one, other)
    different = PairDataset(data, None, augmentation(), seed=1)
    draws = [pairs.indices(n) for pairs in (first, different) for n in range(50)]
    assert len({seed for *_, seed in draws}) == 100
    assert [first.indices(n)[:2] for n in range(20)] != [different.indices(n)[:2] for n in range(20)]


def test_content_of_a_pair():
    """``image`` is the fixed scan, ``moving`` the other one; labels come along where both have them."""
    data = scans("ab", label=True)
    pairs = PairDataset(data, length=5)
    assert len(pairs) == 5
    fixed, moving, _ = pairs.indices(3)
    pair = pairs[3]
    for key, source in {
        "image": (fixed, "image"),
        "moving": (moving, "image"),
        "image_label": (fixed, "label"),
        "moving_label": (moving, "label"),
    }.items():
        torch.testing.assert_close(pair[key], data[source[0]][source[1]])
    del data[0]["label"]
    assert {"image_label", "moving_label"}.isdisjoint(PairDataset(data)[3])


def test_preparation_runs_once_a_scan():
    """The deterministic transform is applied to each scan once, not per draw."""
    seen = []

    def prepare(image):
        seen.append(float(image.sum()))
        return image + 1

    data = scans("abc")
    pairs = PairDataset(data, Lambdad("image", prepare))
    for n in range(10):
        pair = pairs[n]
        torch.testing.assert_close(torch.as_tensor(pair["image"]), data[pairs.indices(n)[0]]["image"] + 1)
    assert len(seen) == 3


def test_scans_are_not_modified():
    """Augmentations leave the kept scans, and the original data, as they are."""
    data = scans("abc", label=True)
    pairs = PairDataset(data, Lambdad("image", torch.clone), augmentation())
    before = [{key: scan[key].clone() for key in ("image", "label")} for scan in pairs.scans]
    drawn = [pairs[n] for n in range(12)]
    assert any((pair["image"] != before[pairs.indices(n)[0]]["image"]).any() for n, pair in enumerate(drawn))
    for kept, original, scan in zip(pairs.scans, before, data, strict=True):
        assert set(kept) == set(scan) == {"image", "subject", "label"}
        for key, value in original.items():
            torch.testing.assert_close(kept[key], value, atol=0, rtol=0)
            torch.testing.assert_close(scan[key], value, atol=0, rtol=0)


def batches(workers, epochs=2, ranks=1, rank=0, batch=2):
    """The batches of some epochs."""
    pairs = PairDataset(scans("aabbc"), None, augmentation(), length=6, seed=7)
    sampler = DrawSampler(pairs, ranks, rank)
    loader = DataLoader(pairs, batch, sampler=sampler, num_workers=workers, persistent_workers=workers > 0)
    result = []
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        result += list(loader)
    return result


def test_any_number_of_workers_gives_the_same_batches():
    """0, 1 and 2 workers: the same images with the same augmentation, epoch after epoch."""
    expected = batches(0)
    assert len(expected) == 6
    for workers in (1, 2):
        for one, other in zip(batches(workers), expected, strict=True):
            assert_same(one, other)
    assert (expected[0]["image"] != expected[3]["image"]).any(), "the second epoch goes on"


def test_plain_functions_as_augmentation():
    """What is not random is not seeded, just applied."""
    pairs = PairDataset(scans("ab"), augmentation=lambda pair: {"sum": pair["image"].sum() + pair["moving"].sum()})
    assert not isinstance(pairs.augmentation, Randomizable)
    torch.testing.assert_close(pairs[0]["sum"], pairs[1]["sum"])


@pytest.mark.parametrize("subjects", ["a", "aaa", ""])
def test_one_subject_is_refused(subjects):
    """Matching one subject, or none, is refused with their number."""
    with pytest.raises(InputError, match=f"there are {len(set(subjects))}"):
        PairDataset(scans(subjects))


@pytest.mark.parametrize("length", [0, -1])
def test_empty_epoch_is_refused(length):
    """An epoch has at least one draw."""
    with pytest.raises(InputError, match="1 or more"):
        PairDataset(scans("ab"), length=length)
