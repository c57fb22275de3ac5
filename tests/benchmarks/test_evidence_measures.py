# SPDX-License-Identifier: Apache-2.0

"""The measures of the comparison, on what is known."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from evidence.cohorts import Cohort, coordinates_reader, local_reader
from evidence.finetuning import fine_tuning
from evidence.matching import propagation, rotation
from evidence.probes import channels, classification, clustering, fit_probe, linear_probe, subject_leakage
from scripts.networks import UNetBackbone
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
    def test_linear_probe(self, small):
        """Features that tell structures apart are probed well, constant ones are not; more labels are a superset."""
        good = linear_probe(lambda image: image[0], small, "all", 0, steps=150, learning_rate=0.1)
        bad = linear_probe(lambda image: 0 * image[0], small, "all", 0, steps=150, learning_rate=0.1)
        assert [value.case for value in good] == [scan["name"] for scan in small.testing]
        assert mean(good, "dice") > 0.6 > 0.45 > mean(bad, "dice")
        assert [s["subject"] for s in small.labelled("2")] == [s["subject"] for s in small.labelled("all")][:2]

    def test_probe_does_not_depend_on_scale_and_offset_of_features(self, small):
        """It is a convolution of the features as they are, whatever was done to them while it learned."""
        readers = [lambda image: image[0], lambda image: 1e-3 * image[0] + 5]
        probes = [fit_probe(reader, small, "all", 0, steps=20, learning_rate=0.1) for reader in readers]
        found = [
            probe(reader(small.testing[0]["image"][None])[None]) for probe, reader in zip(probes, readers, strict=True)
        ]
        assert torch.allclose(*found, atol=0.02)
        assert found[0].std() > 0.1

    def test_clustering(self, small):
        values = clustering(lambda image: torch.cat([image[0], 1 - image[0]]), small, 0, per_structure=20, neighbours=3)
        assert mean(values, "neighbour_purity") > 0.9
        assert mean(values, "silhouette") > 0.5

    def test_subject_leakage(self):
        """1 by chance, as many times more as there are subjects where each subject lies by itself."""
        rng = np.random.default_rng(0)
        owners, codes = np.repeat(np.arange(5), 100), np.ones(500)
        directions = np.linalg.qr(rng.normal(size=(5, 5)))[0]
        apart = directions[owners] + 0.01 * rng.normal(size=(500, 5))
        assert subject_leakage(rng.normal(size=(500, 5)), codes, owners, 5) == pytest.approx(1, abs=0.2)
        assert subject_leakage(apart, codes, owners, 5) == pytest.approx(499 / 99, rel=1e-6)

    def test_coordinates(self):
        features = coordinates_reader(torch.rand(1, 1, 3, 5, 1))
        assert features.shape == (4, 3, 5, 1)
        assert features[1, :, 0, 0].tolist() == [-1, 0, 1]
        assert features[2, 0, :, 0].tolist() == [-1, -0.5, 0, 0.5, 1]

    def test_propagation(self, small):
        """A network that knows the displacement carries the label over exactly; the identity changes nothing."""
        by_image = {id(s): s for s in [*small.training, *small.testing]}

        def start(image):
            label = next(s["label"] for s in by_image.values() if torch.equal(s["image"], image[0]))
            return int(torch.nonzero(label[0])[0, 0])

        def oracle(fixed, moving):
            field = torch.zeros(1, 3, *SIZE)
            field[:, 0] = start(moving) - start(fixed)
            return {"displacement": field}

        values = propagation(oracle, small, atlases=2)
        assert mean(values, "dice_after") == 1
        assert mean(values, "folded_percentage") == 0
        nothing = propagation(lambda fixed, moving: {"displacement": torch.zeros(1, 3, *SIZE)}, small, atlases=2)
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
        """It learns, leaves the start alone, is the same again, and tells when 90 % was reached."""
        torch.manual_seed(0)
        backbone = UNetBackbone(features=(4, 8))
        before = {name: value.clone() for name, value in backbone.state_dict().items()}
        rates = {"learning_rate": 0.01, "head_learning_rate": 0.02, "probe": {"steps": 3, "learning_rate": 0.1}}
        values = fine_tuning(backbone, small, "3", 0, steps=60, interval=20, **rates)
        assert mean(values, "dice") > 0.6
        curve = {value.case: value.value for value in values if value.quantity == "dice_at_step"}
        assert list(curve) == ["20", "40", "60"]
        assert curve["60"] == pytest.approx(mean(values, "dice"))
        reached = next(step for step, value in curve.items() if value >= 0.9 * curve["60"])
        assert mean(values, "steps_to_90_percent") == int(reached)
        assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
        assert fine_tuning(backbone, small, "3", 0, steps=60, interval=20, **rates) == values

    def test_fine_tuning_starts_at_the_linear_probe(self, small):
        torch.manual_seed(0)
        backbone, probe = UNetBackbone(features=(4, 8)), {"steps": 30, "learning_rate": 0.3}
        still = {"learning_rate": 0.0, "head_learning_rate": 0.0, "probe": probe}
        tuned = fine_tuning(backbone, small, "3", 0, steps=1, interval=1, **still)
        probed = linear_probe(local_reader(backbone), small, "3", 0, **probe)
        assert [value for value in tuned if value.quantity == "dice"] == probed

    def test_fine_tuning_with_fresh_levels(self, small):
        """The levels asked for start as the untrained network's; the others as the pre-trained one's."""
        torch.manual_seed(0)
        trained, untrained = UNetBackbone(features=(4, 8, 8)), UNetBackbone(features=(4, 8, 8))
        mixed = UNetBackbone(features=(4, 8, 8))
        mixed.load_state_dict({**trained.state_dict(), **untrained.ups[-1].state_dict(prefix="ups.1.")})
        probe = {"steps": 5, "learning_rate": 0.3}
        still = {"steps": 1, "interval": 1, "learning_rate": 0.0, "head_learning_rate": 0.0, "probe": probe}
        found = fine_tuning(trained, small, "3", 0, **still, fresh=untrained, fresh_levels=1)
        assert found == fine_tuning(mixed, small, "3", 0, **still)
        assert found != fine_tuning(trained, small, "3", 0, **still, fresh=untrained, fresh_levels=0)

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
