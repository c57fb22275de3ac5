# SPDX-License-Identifier: Apache-2.0

"""The measures of the comparison, on what is known."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from evidence.cohorts import Cohort
from evidence.finetuning import fine_tuning
from evidence.matching import propagation, rotation
from evidence.probes import channels, classification, clustering, linear_probe
from evidence.pseudo_labels import carried_labels, weighted_loss
from monai.losses import DiceCELoss
from scripts.networks import UNetBackbone
from scripts.probing import FineTuning
from scripts.spatial import warp

SIZE = (12, 10, 8)


def scan(subject, size=SIZE):
    """Two structures side by side, brighter with the first axis; each subject's lie a little elsewhere."""
    torch.manual_seed(subject)
    label = torch.zeros(1, *size)
    first = 2 + subject % 2
    label[:, first : first + 4, 2:-2, 2:-2] = 1
    label[:, first + 4 : first + 7, 2:-2, 2:-2] = 2
    image = (label / 2 + 0.05 * torch.rand(1, *size)).clamp(0, 1)
    return {"image": image, "label": label, "subject": f"s{subject}", "name": f"s{subject}_scan.nii.gz"}


@pytest.fixture
def small():
    scans = [scan(subject) for subject in range(8)]
    return Cohort(["left", "right"], scans[:5], scans[5:], [1.0, 1.0, 1.0])


def mean(values, quantity):
    found = [value.value for value in values if value.quantity == quantity]
    assert found
    return np.mean(found)


def test_choices_see_no_held_back_subject(small):
    """Nor does one subject lie on both sides."""
    small.training.append({**scan(4), "name": "s4_again.nii.gz"})
    names = [[s["name"] for s in part] for part in (small.training, small.testing)]
    choosing = small.without_held_back(2)
    assert [s["subject"] for s in choosing.training] == ["s0", "s1"]
    assert [s["name"] for s in choosing.testing] == names[0][2:]
    assert [[s["name"] for s in part] for part in (small.training, small.testing)] == names


class TestMeasures:
    @pytest.mark.parametrize("levels", [1, None])
    def test_linear_probe(self, small, levels):
        """Every held-back scan once; more labels are a superset."""
        torch.manual_seed(0)
        values = linear_probe(
            UNetBackbone(features=(4, 8, 8)), small, "all", 0, voxels=960, iterations=40, levels=levels
        )
        assert [value.case for value in values] == [scan["name"] for scan in small.testing]
        assert mean(values, "dice") > 0.4
        assert [s["subject"] for s in small.labelled("2")] == [s["subject"] for s in small.labelled("all")][:2]

    @pytest.mark.parametrize("levels", [1, None])
    def test_clustering(self, small, levels):
        torch.manual_seed(0)
        values = clustering(UNetBackbone(features=(4, 8, 8)), small, 0, levels, per_structure=20, neighbours=3)
        assert [value.quantity for value in values] == ["silhouette", "neighbour_purity", "embedding_collapse"]
        assert mean(values, "neighbour_purity") > 0.5
        assert 0 < mean(values, "embedding_collapse") < 1

    def test_propagation(self, small):
        """A network that knows the displacement carries the label over exactly; the identity changes nothing."""
        by_image = {id(s): s for s in [*small.training, *small.testing]}

        def start(image):
            label = next(s["label"] for s in by_image.values() if torch.equal(s["image"], image[0]))
            return int(torch.nonzero(label[0])[0, 0])

        def oracle(fixed, moving):
            field = torch.zeros(1, 3, *SIZE)
            field[:, 0] = start(moving) - start(fixed)
            return {"affine": torch.eye(3, 4)[None], "local_displacement": field, "displacement": field}

        values = propagation(oracle, small, atlases=2)
        assert mean(values, "dice_after") == 1
        assert mean(values, "folded_percentage") == 0
        assert mean(values, "dice_affine") == mean(values, "dice_before")
        none = torch.zeros(1, 3, *SIZE)
        still = {"affine": torch.eye(3, 4)[None], "local_displacement": none, "displacement": none}
        nothing = propagation(lambda fixed, moving: still, small, atlases=2)
        assert mean(nothing, "dice_after") == mean(nothing, "dice_before") == mean(values, "dice_before") < 0.95

    @pytest.mark.parametrize("spacing", [[1.0, 1.0, 1.0], [1.0, 2.0, 4.0]])
    def test_rotation(self, small, spacing, monkeypatch):
        """The true map leaves no error of displacement and angle; the identity leaves all of it."""
        small.spacing = spacing
        seen = []

        def remember(image, displacement, **options):
            seen.append(displacement)
            return warp(image, displacement, **options)

        monkeypatch.setattr("evidence.matching.warp", remember)

        def oracle(fixed, moving):
            true = seen[-1]
            corners = true[0, :, 0, 0, 0]
            columns = [true[0, :, 1, 0, 0] - corners, true[0, :, 0, 1, 0] - corners, true[0, :, 0, 0, 1] - corners]
            linear = torch.stack(columns, dim=1) + torch.eye(3)
            return {"displacement": true, "affine": torch.cat([linear, corners[:, None]], dim=1)[None]}

        values = rotation(oracle, small, 0, largest=15)
        assert mean(values, "error_after") == 0
        assert mean(values, "angle_after") < 0.1
        assert 1 < mean(values, "angle_before") < 26
        assert mean(values, "error_before") > 0.2

    def test_fine_tuning(self, small):
        """It learns, and tells when 90 % was reached; see the tests of the probes for the rest."""
        torch.manual_seed(0)
        backbone, fresh = (SimpleNamespace(backbone=UNetBackbone(features=(4, 8))) for _ in range(2))
        rates = {"learning_rate": 0.01, "head_learning_rate": 0.02}
        values = fine_tuning(backbone, fresh, small, "3", 0, steps=60, measured=3, **rates)
        assert mean(values, "dice") > 0.6
        curve = {value.case: value.value for value in values if value.quantity == "dice_at_step"}
        assert list(curve) == ["20", "40", "60"]
        assert curve["60"] == pytest.approx(mean(values, "dice"))
        reached = next(step for step, value in curve.items() if value >= 0.9 * curve["60"])
        assert mean(values, "steps_to_90_percent") == int(reached)

    def test_labels_carried_to_others_are_learned_from_by_confidence(self, small):
        """A known shift is undone, where the scans are alike the confidence is high; other labels are not looked at."""

        def shifted(fixed, moving):
            by = [torch.nonzero(image[0, 0] > 0.4)[0, 0] for image in (moving, fixed)]
            field = torch.zeros(1, 3, *SIZE)
            field[:, 0] = by[0] - by[1]
            maps = {"affine": torch.eye(3, 4)[None], "local_displacement": field, "displacement": field}
            return {**maps, "warped": warp(moving, field)}

        unlabelled = [one | ({} if i == 0 else {"label": one["label"] * 0}) for i, one in enumerate(small.training)]
        cohort = Cohort(small.names, unlabelled, small.testing, small.spacing)
        found = carried_labels(shifted, cohort, "1", most=3)
        assert [one["name"] for one in found] == [f"s{n}_scan.nii.gz" for n in (0, 0, 0, 1, 2, 3)]
        for one, true in zip(found[3:], small.training[1:4], strict=True):
            inside = (slice(None), slice(1, -1), slice(1, -1), slice(1, -1))
            assert torch.equal(one["label"][inside], true["label"][inside])
            assert 0.5 < one["confidence"][true["label"] > 0].mean() <= 1
        for number, one in enumerate(cohort.training):
            one["drawn"] = torch.tensor([1.0, 0.0] if number < 2 else [0.0, 1.0])
        partial = carried_labels(shifted, cohort, "2", most=3)
        assert all(one["drawn"].tolist() == [1, 0] for one in partial)

    def test_a_scan_does_not_vote_against_what_was_not_drawn_in_it(self, small):
        """Two scans with the same anatomy, and one structure drawn in each: both are carried, as from whole maps."""

        def alike(fixed, moving):
            field = torch.zeros(1, 3, *SIZE)
            maps = {"affine": torch.eye(3, 4)[None], "local_displacement": field, "displacement": field}
            return {**maps, "warped": moving}

        whole = torch.zeros(1, *SIZE)
        whole[:, 2:5], whole[:, 7:10] = 1, 2
        image = torch.rand(1, *SIZE, generator=torch.Generator().manual_seed(0)) + whole
        scans = [{"image": image, "label": whole, "subject": str(n), "name": f"s{n}"} for n in range(3)]
        for number in range(2):
            kept = torch.where(whole == number + 1, whole, torch.zeros_like(whole))
            scans[number] |= {"label": kept, "drawn": torch.eye(2)[number]}
        scans[2] |= {"drawn": torch.ones(2)}
        found = carried_labels(alike, Cohort(["one", "two"], scans, [], small.spacing), "2", most=1)
        assert torch.equal(found[-1]["label"], whole)
        assert found[-1]["drawn"].tolist() == [1, 1]
        assert found[-1]["confidence"].min() > 0.9
        assert [one["drawn"].tolist() for one in found[:2]] == [[1, 0], [0, 1]]

    @pytest.mark.parametrize("weighted", [True, False])
    def test_carried_labels_count_by_confidence_or_alike(self, small, weighted, monkeypatch):
        learned = []
        made = [{**one, "confidence": one["label"] * 0 + 0.5} for one in small.training]
        monkeypatch.setattr("evidence.finetuning.carried_labels", lambda *_: made)

        def train(_, start, fresh, scans, *rest):
            learned.extend(scans)
            return {1: {"s": 0.5}}, []

        monkeypatch.setattr(FineTuning, "__call__", train)
        none = SimpleNamespace(backbone=None)
        fine_tuning(none, none, small, "1", 0, carried=3, weighted=weighted)
        assert len(learned) == len(made)
        assert all(("confidence" in one) is weighted for one in learned)

    def test_a_voxel_counts_by_its_confidence(self):
        torch.manual_seed(0)
        logits, label = torch.randn(1, 3, *SIZE), torch.randint(0, 3, (1, 1, *SIZE)).float()
        plain = DiceCELoss(to_onehot_y=True, softmax=True, include_background=False)(logits, label)
        assert torch.isclose(weighted_loss(logits, label), plain, atol=1e-5)
        assert torch.isclose(weighted_loss(logits, label, torch.ones_like(label)), plain, atol=1e-5)
        half = torch.zeros_like(label)
        half[:, :, :6] = 1
        changed = torch.where(half > 0, logits, 9.0)
        assert torch.isclose(weighted_loss(logits, label, half), weighted_loss(changed, label, half), atol=1e-5)

    def test_channels(self, small):
        """Copies of one channel are wholly redundant, on every held-back scan."""

        def levels(image):
            return [image[..., :4].repeat(1, 3, 1, 1, 1), image.repeat(1, 2, 1, 1, 1), image]

        values = channels(SimpleNamespace(backbone=SimpleNamespace(levels=levels)), small)
        assert [value.case for value in values] == [s["name"] for s in small.testing for _ in range(3)]
        assert mean(values, "mean_redundancy") == pytest.approx(2 / 3, rel=1e-2)
        assert mean(values, "local_redundancy") == pytest.approx(1, rel=1e-3)
        assert mean(values, "global_redundancy") == pytest.approx(1, rel=1e-2)

    def test_classification(self, tmp_path):
        """Brightness is told from the mean features; scans of one subject never lie on both sides."""
        scans = [scan(subject // 2) | {"name": f"s{subject // 2}_{subject % 2}"} for subject in range(24)]
        for number, item in enumerate(scans):
            item["image"] = item["image"] + (number // 2 % 2)
        (tmp_path / "table.csv").write_text("who,group\n" + "".join(f"s{i},{'ab'[i % 2]}\n" for i in range(12)))
        network = SimpleNamespace(backbone=lambda image: (image, image))
        about = {"table": "table.csv", "key": "who", "label": "group"}
        values = classification(network, Cohort([], scans[:12], scans[12:], [1.0] * 3), about, tmp_path, 0, folds=3)
        assert mean(values, "auc") == 1
