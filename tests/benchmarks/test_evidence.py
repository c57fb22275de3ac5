# Copyright (c) GVSL bundle contributors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""The comparison of arms: plan, results, statistics, measures on what is known, and a whole quick run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from evidence import results
from evidence.cohorts import Cohort, coordinates_reader, local_reader
from evidence.finetuning import fine_tuning
from evidence.matching import propagation, rotation
from evidence.plan import PROBES, Unit, list_units, merged, read_plan
from evidence.pretraining import overlay
from evidence.probes import channels, classification, clustering, fit_probe, linear_probe, subject_leakage
from evidence.results import Value
from evidence.table import compare, markdown, paired_p
from scripts.backbone import UNetBackbone
from scripts.errors import InputError
from scripts.geometry import warp


@pytest.fixture(scope="module")
def plan(repository):
    return read_plan(repository / "benchmarks" / "evidence.json")


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


class TestPlan:
    def test_arms_and_measures_of_the_comparison(self, plan):
        """Every arm, control, set and number of labels that the comparison needs is there, thrice."""
        units = list_units(plan)
        assert {
            "coordinates",
            "random",
            "restoration",
            "matching",
            "no_affine",
            "gvsl",
            "symmetric",
            "correlation",
        } <= {unit.arm for unit in units}
        assert {unit.data for unit in units} == {"hippocampus", "ixi_brain", "sunnybrook_cardiac"}
        main = [unit for unit in units if unit.arm == "correlation" and unit.data == "ixi_brain"]
        assert {unit.seed for unit in main} == {"0", "1", "2"}
        labels = {(unit.measure, unit.labelled) for unit in main}
        assert {("linear_probe", n) for n in ("3", "10", "all")} <= labels
        assert {("fine_tuning", n) for n in ("1", "3", "5", "10")} <= labels
        assert {m for m, n in labels if not n} == {
            "channels",
            "propagation",
            "clustering",
            "rotation",
            "classification",
        }
        assert len(set(units)) == len(units)
        assert all(unit.data == unit.pretrained_on for unit in units)

    def test_what_an_arm_cannot_do_is_left_out(self, plan):
        """The control has no network, hippocampus no classes, and the shipped model one set and seed."""
        units = list_units(plan)
        assert {unit.measure for unit in units if unit.arm == "coordinates"} == {"linear_probe", "clustering"}
        assert not [unit for unit in units if unit.data == "hippocampus" and unit.measure == "classification"]
        assert {(unit.pretrained_on, unit.seed) for unit in units if unit.arm == "shipped"} == {("ixi_brain", "0")}

    def test_across(self, plan):
        """Inter-scene transfer: only what was pre-trained can be carried to another set."""
        units = list_units(plan, across=True, seeds=[0])
        assert {unit.arm for unit in units if unit.data != unit.pretrained_on} == {
            arm for arm, about in plan["arms"].items() if about.get("start") not in ("random", "coordinates")
        }

    def test_selection_keeps_networks_together(self, plan):
        units = list_units(plan, arms=["correlation"], sets=["ixi_brain"], seeds=[3, 1])
        networks = [(unit.pretrained_on, unit.arm, unit.seed) for unit in units]
        assert list(dict.fromkeys(networks)) == [("ixi_brain", "correlation", "3"), ("ixi_brain", "correlation", "1")]
        assert networks == sorted(networks, key=list(dict.fromkeys(networks)).index)

    @pytest.mark.parametrize("what", ["arms", "sets", "measures", "pretrained_on"])
    def test_unknown_names(self, plan, what):
        with pytest.raises(InputError, match="nonsense"):
            list_units(plan, **{what: ["nonsense"]})

    def test_no_plan(self, tmp_path):
        path = tmp_path / "plan.json"
        for text in (None, "{", "[]"):
            if text is not None:
                path.write_text(text)
            with pytest.raises(InputError, match=r"plan\.json"):
                read_plan(path, quick=True)

    def test_merged(self):
        assert merged({"a": {"b": 1, "c": [1, 2]}, "d": 3}, {"a": {"c": [9]}, "d": {"e": 4}}) == {
            "a": {"b": 1, "c": [9]},
            "d": {"e": 4},
        }

    def test_arms_differ_by_what_they_are_named_for(self, plan):
        """Same budget, seed and set for all; each arm is one change away from the one it is compared with."""
        of = {arm: overlay(plan, "ixi_brain", arm, "1") for arm, about in plan["arms"].items() if "start" not in about}

        def changed(first, second):
            keys = {*of[first], *of[second]}
            return {key for key in keys if of[first].get(key, "absent") != of[second].get(key, "absent")}

        assert changed("correlation", "restoration") == {"matching_weight", "smoothness_weight"}
        assert changed("correlation", "matching") == {"restoration_weight"}
        assert changed("correlation", "no_affine") == {"network_def#affine_head"}
        assert changed("correlation", "symmetric") == {"matching_head"}
        assert changed("symmetric", "gvsl") == {"symmetric"}
        assert changed("correlation", "velocity") == {"velocity_steps"}
        assert changed("correlation", "longer") == {"epochs"}
        assert changed("correlation", "distinct") == changed("distinct", "most_distinct") == {"redundancy_weight"}
        assert of["correlation"]["seed"] == 1


class TestResults:
    UNIT = Unit("a", "arm", "0", "a", "linear_probe", "3")

    def test_round_trip(self, tmp_path):
        path = tmp_path / "results.csv"
        values = [Value("dice", "x", 0.5), Value("dice", "y", float("nan"))]
        results.append(path, self.UNIT, values)
        results.append(path, self.UNIT._replace(seed="1"), values[:1])
        found = results.read(path)
        assert list(found) == [self.UNIT, self.UNIT._replace(seed="1")]
        assert found[self.UNIT][0] == values[0]
        assert np.isnan(found[self.UNIT][1].value)

    def test_what_was_cut_off_does_not_count(self, tmp_path):
        """Of a unit whose last row is missing nothing is read, and measured again it is complete."""
        path = tmp_path / "results.csv"
        assert results.read(path) == {}
        results.append(path, self.UNIT, [Value("dice", "x", 0.5)])
        whole = path.read_text()
        path.write_text(whole[: whole.rindex("a,arm")] + "a,arm,0")
        assert results.read(path) == {}


class TestTable:
    def test_mean_deviation_and_test(self):
        """Mean over cases and seeds, deviation between seeds, a test paired by seed and case."""
        found = {}
        for arm, shift in {"reference": 0.0, "worse": -0.1}.items():
            for seed in ("0", "1"):
                cases = [Value("dice", str(i), 0.5 + shift + 0.01 * i + 0.1 * int(seed)) for i in range(4)]
                found[Unit("a", arm, seed, "a", "linear_probe", "3")] = cases
        ((question, answers),) = compare(found, {"reference": "reference"}).items()
        assert question == ("a", "a", "linear_probe", "3", "dice")
        assert answers["reference"].mean == pytest.approx(0.565)
        assert answers["worse"].mean == pytest.approx(0.465)
        assert answers["worse"].deviation == pytest.approx(0.1 / np.sqrt(2))
        assert (answers["worse"].seeds, answers["worse"].cases) == (2, 4)
        assert answers["worse"].p == pytest.approx(2 / 2**8)
        assert np.isnan(answers["reference"].p)
        ((_, answers),) = compare(found, {"reference": "reference", "references": {"linear_probe": "worse"}}).items()
        assert np.isnan(answers["worse"].p)
        assert answers["reference"].p == pytest.approx(2 / 2**8)

    def test_too_few_pairs(self):
        few = {str(i): 0.1 * i for i in range(5)}
        assert np.isnan(paired_p(few, {key: 0.0 for key in few}))
        assert np.isnan(paired_p({str(i): 1.0 for i in range(9)}, {str(i): 1.0 for i in range(9)}))

    def test_markdown(self, plan):
        unit = Unit("ixi_brain", "correlation", "0", "ixi_brain", "linear_probe", "3")
        found = {
            unit: [Value("dice", "x", 0.25)],
            unit._replace(labelled="10"): [Value("dice", "x", 0.75)],
            unit._replace(arm="random"): [Value("dice", "x", 0.125)],
        }
        text = markdown(found, plan)
        assert "### ixi_brain: linear probe (against `correlation`)" in text
        assert "| arm | seeds | dice, 3 labelled | dice, 10 labelled |" in text
        assert "| random | 1 | 0.125 |  |\n| correlation | 1 | 0.250 | 0.750 |" in text
        assert markdown({}, plan) == "No results yet.\n"


def mean(values, quantity):
    found = [value.value for value in values if value.quantity == quantity]
    assert found
    return np.mean(found)


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
        network = SimpleNamespace(
            backbone=lambda image: (image[..., :4].repeat(1, 3, 1, 1, 1), image.repeat(1, 2, 1, 1, 1))
        )
        values = channels(network, small)
        assert [value.case for value in values] == [s["name"] for s in small.testing for _ in range(2)]
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


@pytest.fixture(scope="module")
def quick(repository, cohort, tmp_path_factory):
    """A plan of two arms on the made-up cohort that learn at a rate of 0, and a way to run it."""
    folder = tmp_path_factory.mktemp("evidence")
    sets = folder / "sets" / "cohort"
    sets.parent.mkdir()
    sets.mkdir()
    for part in cohort.iterdir():
        if part.is_dir():
            (sets / part.name).symlink_to(part)
    description = json.loads((cohort / "dataset.json").read_text())
    (sets / "dataset.json").write_text(json.dumps({**description, "labels": {"0": "background", "1": "shape"}}))
    plan = json.loads((repository / "benchmarks" / "evidence.json").read_text())
    plan["sets"] = {
        "cohort": {
            "shared": {"pixdim": [1.5] * 3, "spatial_size": [16] * 3, "validation_fraction": 0.4},
            "training": {},
            "merged_labels": None,
            "classification": None,
        }
    }
    plan["arms"] = {name: plan["arms"][name] for name in ("coordinates", "random", "gvsl", "correlation")}
    plan["quick"]["budget"]["learning_rate"] = 0.0
    (folder / "plan.json").write_text(json.dumps(plan))

    def run(*options):
        return subprocess.run(
            [
                *(sys.executable, repository / "benchmarks" / "run_evidence.py", "--quick"),
                *("--data", folder / "sets", "--out", folder / "out", "--plan", folder / "plan.json", *options),
            ],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=1200,
            check=False,
        )

    return folder / "out", run


def test_quick_run(quick, plan):
    """
    A whole run: every unit once, files written; started again it repeats nothing; the arms began with the same
    backbone, which a learning rate of 0 has left as it was.
    """
    out, run = quick
    first = run("--arms", "coordinates", "correlation", "--measures", "linear_probe", "propagation")
    assert first.returncode == 0, first.stderr
    rows = (out / "results.csv").read_text()
    again = run()
    assert again.returncode == 0, again.stderr
    assert "5 done already" in again.stdout
    assert (out / "results.csv").read_text().startswith(rows)
    found = results.read(out / "results.csv")
    counts = Counter((unit.arm, unit.measure) for unit in found)
    left_out = {*PROBES, "classification"}  # counted above, and without classes
    assert counts == {
        **{(arm, "linear_probe"): 2 for arm in ("coordinates", "random", "gvsl", "correlation")},
        **{(arm, "clustering"): 1 for arm in ("coordinates", "random", "gvsl", "correlation")},
        **{(arm, m): 1 for arm in ("random", "gvsl", "correlation") for m in set(plan["measures"]) - left_out},
    }
    weights = [
        torch.load(out / "pretraining" / "cohort" / f"{arm}_0" / "checkpoint.pt", weights_only=True)["network"]
        for arm in ("gvsl", "correlation")
    ]
    backbones = [{k: v for k, v in w.items() if k.startswith("backbone.")} for w in weights]
    assert backbones[0].keys() == backbones[1].keys()
    assert all(torch.equal(value, backbones[1][name]) for name, value in backbones[0].items())
    for name in ("results.md", "cohort_learning_curves.png", "cohort_label_efficiency.png", "cohort_features.png"):
        assert (out / name).stat().st_size > 500, name
    assert (out / "cohort_registration.png").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [(("--sets", "elsewhere"), "elsewhere"), (("--data", "nowhere"), "--data"), (("--arms", "magic"), "magic")],
)
def test_mistakes_are_told_in_one_line(quick, options, message):
    _, run = quick
    ended = run(*options)
    assert ended.returncode != 0
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr
