# SPDX-License-Identifier: Apache-2.0

"""The comparison of arms: what is compared, what is kept of it, and the statistics and tables of that."""

from __future__ import annotations

import numpy as np
import pytest
from evidence import results
from evidence.plan import Unit, against, list_units, merged, read_plan
from evidence.pretraining import overlay
from evidence.results import Value
from evidence.table import compare, markdown, paired_p, reference_of
from scripts.errors import InputError


class TestPlan:
    def test_arms_and_measures_of_the_comparison(self, plan):
        """Every arm, control, set and number of labels that the comparison needs is there, thrice."""
        units = list_units(plan)
        arms = {"random", "restoration", "masked_autoencoding", "published", "places", "places_and_matching"}
        assert arms | {"no_restoration", "after_masked"} <= {unit.arm for unit in units}
        sets = {"hippocampus", "ixi_brain", "sunnybrook_cardiac", "openkbp_headneck_ct"}
        assert {unit.data for unit in units} == sets
        main = [unit for unit in units if unit.arm == "places_and_matching" and unit.data == "ixi_brain"]
        assert {unit.seed for unit in main} == {"0", "1", "2"}
        labels = {(unit.measure, unit.labelled) for unit in main}
        assert {(m, n) for m in ("linear_probe", "levels_probe") for n in ("1", "3", "10", "all")} <= labels
        assert {("fine_tuning", n) for n in ("1", "10")} <= labels
        assert {"channels", "propagation", "clustering", "rotation", "classification"} <= {
            m for m, n in labels if not n
        }
        assert len(set(units)) == len(units)
        assert all(unit.data == unit.pretrained_on for unit in units)

    def test_what_an_arm_cannot_do_is_left_out(self, plan):
        """Hippocampus has no classes, and the shipped model one mixture and seed."""
        units = list_units(plan, pretrained_on=[*plan["sets"], "together"])
        assert not [unit for unit in units if unit.data == "hippocampus" and unit.measure == "classification"]
        assert {(unit.pretrained_on, unit.seed) for unit in units if unit.arm == "shipped"} == {("together", "0")}

    def test_across(self, plan):
        """Inter-scene transfer: only what was pre-trained can be carried to another set."""
        units = list_units(plan, across=True, seeds=[0])
        assert {unit.arm for unit in units if unit.data != unit.pretrained_on} == {
            arm for arm, about in plan["arms"].items() if "start" not in about
        }

    def test_a_mixture_is_measured_on_each_of_its_sets(self, plan):
        """It is pre-trained on when asked for; what has no pre-training has no part in it."""
        units = list_units(plan, pretrained_on=["together"], arms=["random", "places"], seeds=[0])
        assert {unit.arm for unit in units} == {"places"}
        assert {unit.data for unit in units} == set(plan["mixtures"]["together"]["zoom"])

    def test_a_mixture_gives_each_set_the_steps_it_has_alone(self, plan):
        """And keeps its subjects apart by its own key."""
        alone, mixed = (overlay(plan, source, "places", "1") for source in ("hippocampus", "together"))
        assert mixed["epoch_length"] == 3 * alone["epoch_length"]
        assert mixed["epochs"] == alone["epochs"]
        assert mixed["zoom"] == [1, 6, 2]
        keys = [plan["sets"][data]["shared"].get("subject_key") for data in plan["mixtures"]["together"]["zoom"]]
        assert mixed["subject_key"] == keys
        assert keys[1] == alone["subject_key"]

    def test_selection_keeps_networks_together(self, plan):
        units = list_units(plan, arms=["places"], sets=["ixi_brain"], seeds=[3, 1])
        networks = [(unit.pretrained_on, unit.arm, unit.seed) for unit in units]
        assert list(dict.fromkeys(networks)) == [("ixi_brain", "places", "3"), ("ixi_brain", "places", "1")]
        assert networks == sorted(networks, key=list(dict.fromkeys(networks)).index)

    def test_some_numbers_of_labels_alone(self, plan):
        """Measures without labels stay."""
        units = list_units(plan, ["places"], ["ixi_brain"], ["ixi_brain"], [0], labelled=["1"])
        assert {unit.labelled for unit in units} == {"", "1"}
        assert {unit.measure for unit in units} == set(plan["measures"])

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

        default = "places_and_matching"
        weights = {"known_map_weight", "matching_weight", "smoothness_weight", "restoration_weight"}
        assert changed(default, "places") == {"known_share", *weights}
        assert changed(default, "no_restoration") == {"restoration_weight"}
        assert changed(default, "twice") == {"epochs"}
        assert changed(default, "after_masked") == set()
        assert plan["arms"]["after_masked"]["after"] == "masked_autoencoding"
        restored = {"corruption", "loss#terms#restoration#_target_"}
        assert changed("masked_autoencoding", "restoration") == restored
        assert of[default]["seed"] == 1


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

    def test_an_arm_from_elsewhere_is_tested_against_the_sets_own_reference(self):
        found = {}
        for source, shift in {"a": 0.0, "b": -0.1}.items():
            cases = [Value("dice", str(i), 0.5 + shift + 0.01 * i) for i in range(8)]
            found[Unit(source, "reference", "0", "a", "linear_probe", "3")] = cases
        plan = {"reference": "reference", "arms": {"reference": {"description": "x"}}}
        own, other = (answers["reference"].p for answers in compare(found, plan).values())
        assert np.isnan(own)
        assert other == pytest.approx(2 / 2**8)
        text = markdown(found, plan)
        assert "### a: linear probe (against `reference`)" in text
        assert "### a, pre-trained on b: linear probe (against `reference` of a)" in text

    def test_another_reference(self, plan):
        """It holds for every measure; the plan itself stays as it is."""
        other = against(plan, "random")
        assert {reference_of(other, measure) for measure in plan["measures"]} == {"random"}
        assert (
            reference_of(against(plan, None), "linear_probe")
            == reference_of(plan, "linear_probe")
            == "places_and_matching"
        )
        with pytest.raises(InputError, match="no arms named 'magic'"):
            against(plan, "magic")

    def test_too_few_pairs(self):
        few = {str(i): 0.1 * i for i in range(5)}
        assert np.isnan(paired_p(few, {key: 0.0 for key in few}))
        assert np.isnan(paired_p({str(i): 1.0 for i in range(9)}, {str(i): 1.0 for i in range(9)}))

    def test_markdown(self, plan):
        unit = Unit("ixi_brain", "places_and_matching", "0", "ixi_brain", "linear_probe", "3")
        found = {
            unit: [Value("dice", "x", 0.25)],
            unit._replace(labelled="10"): [Value("dice", "x", 0.75)],
            unit._replace(arm="random"): [Value("dice", "x", 0.125)],
        }
        text = markdown(found, plan)
        assert "### ixi_brain: linear probe (against `places_and_matching`)" in text
        assert "| arm | seeds | dice, 3 labelled | dice, 10 labelled |" in text
        assert "| random | 1 | 0.125 |  |\n| places_and_matching | 1 | 0.250 | 0.750 |" in text
        assert markdown({}, plan) == "No results yet.\n"
