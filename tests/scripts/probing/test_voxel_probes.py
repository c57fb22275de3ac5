# SPDX-License-Identifier: Apache-2.0

"""Probes of voxels: what can be learned is learned, labels of other scans are not; starts are left as they were."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from monai.losses import DiceCELoss
from scripts.errors import InputError
from scripts.networks import UNetBackbone
from scripts.probing import FineTuning, LinearProbe, carry_over, cluster_measures, read_cases
from scripts.probing.voxel_probes import dice_of, exchanged
from torch import nn


def item(subject: int) -> dict:
    """Two bright blocks at places of their own in noise."""
    generator = torch.Generator().manual_seed(subject)
    image = 0.05 * torch.randn(1, 16, 16, 16, generator=generator)
    label = torch.zeros(1, 16, 16, 16)
    for code in (1, 2):
        x, y, z = torch.randint(0, 10, (3,), generator=generator).tolist()
        block = (0, slice(x, x + 5), slice(y, y + 5), slice(z, z + 5))
        label[block] = code
    image += label
    return {"image": image, "label": label, "subject": str(subject), "name": f"{subject}.nii.gz"}


@pytest.fixture
def items():
    return [item(subject) for subject in range(6)]


@pytest.fixture
def backbone():
    torch.manual_seed(0)
    return UNetBackbone(features=(8, 16))


def test_true_labels_are_learned_and_exchanged_ones_are_not(backbone, items):
    probe = LinearProbe(voxels=4096, iterations=40)
    true = probe(backbone, items[:4], items[4:], 2)
    assert set(true) == {"4.nii.gz", "5.nii.gz"}
    assert min(true.values()) > 0.5
    false = probe(backbone, exchanged(items[:4]), items[4:], 2)
    assert max(false.values()) < 0.4


def test_labels_are_exchanged_between_subjects_alone(items):
    twice = [items[0], {**items[1], "subject": "0"}, items[2]]
    found = [entry["label"] for entry in exchanged(twice)]
    assert [next(i for i, own in enumerate(twice) if own["label"] is label) for label in found] == [2, 2, 0]


def test_what_was_not_drawn_is_not_scored(items):
    """Both structures found, one drawn: a Dice of 1 where this is told, of 0.5 else."""
    found = items[0]["label"].to(torch.uint8)
    drawn = {**items[0], "label": items[0]["label"] * (items[0]["label"] == 1)}
    told = {**drawn, "drawn": torch.tensor([1.0, 0.0])}
    assert dice_of([found], [told]) == {"0.nii.gz": 1.0}
    assert dice_of([found], [drawn]) == {"0.nii.gz": 0.5}


def test_what_was_drawn_is_exchanged_with_the_labels(items):
    told = [{**one, "drawn": torch.tensor([1.0, float(number)])} for number, one in enumerate(items[:2])]
    assert [entry["drawn"].tolist() for entry in exchanged(told)] == [[1, 1], [1, 0]]


def test_fine_tuning_leaves_open_what_was_not_drawn(items):
    """Of four scans one alone has structure 2 drawn: told so, a training finds it in others; else it does not."""
    torch.manual_seed(0)
    backbone = UNetBackbone(features=(8, 16))
    loss = DiceCELoss(to_onehot_y=True, softmax=True, include_background=False)
    partly = [{**one, "label": one["label"] * (one["label"] == 1)} for one in items[1:4]]
    told = [items[0], *({**one, "drawn": torch.tensor([1.0, 0.0])} for one in partly)]
    tuning = FineTuning(loss, steps=24, measured=1, levels=None)
    dice = [tuning(backbone, backbone, learned, items[4:], 2, seed=3)[0][24] for learned in (told, [items[0], *partly])]
    assert min(dice[0].values()) > 0.6
    assert max(dice[1].values()) < 0.6


def test_fine_tuning_learns_and_leaves_the_start(backbone, items):
    before = deepcopy(backbone.state_dict())
    torch.manual_seed(1)
    fresh = UNetBackbone(features=(8, 16))
    loss = DiceCELoss(to_onehot_y=True, softmax=True, include_background=False)
    tuning = FineTuning(loss, steps=24, measured=3)
    curve, maps = tuning(backbone, fresh, items[:4], items[4:], 2, seed=3)
    assert list(curve) == [8, 16, 24]
    assert min(curve[24].values()) > 0.6
    assert [tuple(label.shape) for label in maps] == [(1, 16, 16, 16)] * 2
    assert all(torch.equal(before[name], value) for name, value in backbone.state_dict().items())
    again, _ = tuning(backbone, fresh, items[:4], items[4:], 2, seed=3)
    assert again == curve


@pytest.mark.parametrize("levels", [1, None])
def test_fine_tuning_begins_with_the_fitted_layer(items, levels):
    """At rates of 0 it is the linear probe, of one level or of all; the confidence of an item is given to the loss."""
    torch.manual_seed(0)
    backbone, seen = UNetBackbone(features=(8, 8, 16)), []

    def loss(logits, label, confidence):
        seen.append(confidence)
        return logits.sum()

    learned = [{**one, "confidence": one["label"]} for one in items[:4]]
    still = {"steps": 1, "measured": 1, "learning_rate": 0.0, "head_learning_rate": 0.0, "fresh_levels": 0}
    curve, _ = FineTuning(loss, **still, levels=levels)(backbone, backbone, learned, items[4:], 2)
    assert curve[1] == LinearProbe(levels=levels)(backbone, items[:4], items[4:], 2)
    assert seen[0].shape == (1, 1, 16, 16, 16)


def test_clusters_of_the_labels_themselves_are_pure(items):
    class Image(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, image):
            return image, torch.cat([image, 1 - image], dim=1)

    found = cluster_measures(Image(), items, per_structure=20)
    assert found["neighbour_purity"] > 0.9
    assert found["chance"] == 0.5
    assert found["embedding_collapse"] > 0.4


def test_labels_are_carried_from_the_next_subject(items):
    class Still(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, fixed, moving):
            return {"displacement": torch.zeros(1, 3, *fixed.shape[2:])}

    same = [{**entry, "label": items[0]["label"]} for entry in items]
    found = carry_over(Still(), same)
    assert set(found["after"].values()) == {1.0}
    assert found["before"] == found["after"]
    assert max(found["folded"].values()) == 0


class TestCases:
    @staticmethod
    def scans(count, each=1):
        return [
            {"image": f"{n}_{k}", "label": f"{n}_{k}", "subject": f"s{n}"} for n in range(count) for k in range(each)
        ]

    @staticmethod
    def transform(scan):
        return {"image": torch.zeros(1, 4, 4, 4), "label": torch.full((1, 4, 4, 4), 7.0)}

    def test_each_subject_is_held_back_once(self):
        cases = read_cases(self.scans(7, each=2), self.transform, (["a"], [[7]]), folds=3)
        held = [cases.split(fold)[1] for fold in range(3)]
        assert sorted(entry["name"] for part in held for entry in part) == sorted(s["image"] for s in self.scans(7, 2))
        for fold in range(3):
            learned, tested = cases.split(fold)
            assert not {entry["subject"] for entry in learned} & {entry["subject"] for entry in tested}
        assert set(cases.by_subject({entry["name"]: 1.0 for entry in cases.items})) == {f"s{n}" for n in range(7)}
        assert cases.items[0]["label"].unique().tolist() == [1]

    def test_no_more_scans_than_asked_for_are_read(self, capsys):
        cases = read_cases(self.scans(9, each=2), self.transform, (["a"], [[7]]), most_scans=12)
        assert len(cases.items) == 12
        assert "12 of 18 labelled scans" in capsys.readouterr().out

    def test_too_few_subjects_are_refused(self):
        with pytest.raises(InputError, match="8 labelled scans of 4 subjects"):
            read_cases(self.scans(4, each=2), self.transform, (["a"], [[7]]))

    def test_a_crop_without_structure_is_refused(self):
        with pytest.raises(InputError, match="no labelled structure lies in the crop"):
            read_cases(self.scans(5), self.transform, (["a"], [[8]]))


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: LinearProbe(voxels=0), "probe#linear#voxels"),
        (lambda: LinearProbe(iterations=1.5), "probe#linear#iterations"),  # type: ignore[arg-type]
        (lambda: FineTuning(nn.MSELoss(), measured=0), "probe#fine_tuning#measured"),
        (lambda: FineTuning(nn.MSELoss(), voxels="many"), "probe#fine_tuning#voxels"),  # type: ignore[arg-type]
        (lambda: FineTuning(nn.MSELoss(), steps=0), "steps"),
    ],
)
def test_refusals_name_the_option_of_the_configuration(build, named):
    with pytest.raises(InputError, match=f"^{named} must be .*: pass --{named} accordingly$"):
        build()
