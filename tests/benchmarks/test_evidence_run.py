# SPDX-License-Identifier: Apache-2.0

"""The comparison of arms as a user runs it: a whole quick run, and mistakes."""

from __future__ import annotations

import json
from collections import Counter

import nibabel as nib
import numpy as np
import pytest
import run_evidence
import torch
from evidence import results
from evidence.plan import Unit, list_units, read_plan
from evidence.settings import digest, keep_settings
from scripts.data import find_scans
from scripts.errors import InputError
from warm_start import run_warm


@pytest.fixture(scope="module")
def quick(repository, cohort, tmp_path_factory):
    """A plan of four arms on the made-up cohort that learn at a rate of 0, and a way to run it."""
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
            "merged_labels": None,
            "classification": None,
        }
    }
    plan["arms"] = {
        name: plan["arms"][name] for name in ("random", "masked_autoencoding", "places_and_matching", "after_masked")
    }
    plan["quick"]["budget"]["learning_rate"] = 0.0
    (folder / "plan.json").write_text(json.dumps(plan))

    def run(*options):
        given = ("--data", folder / "sets", "--out", folder / "out", "--plan", folder / "plan.json", *options)
        return run_warm((repository / "benchmarks" / "run_evidence.py", "--quick", *given), timeout=1200)

    return folder / "out", run


def test_quick_run(quick, plan):
    """
    A whole run: every unit once, files written; started again it repeats nothing; the arms began with the same
    backbone, which a learning rate of 0 has left as it was.
    """
    out, run = quick
    first = run("--arms", "random", "places_and_matching", "--measures", "linear_probe", "propagation")
    assert first.returncode == 0, first.stderr
    rows = (out / "results.csv").read_text()
    again = run()
    assert again.returncode == 0, again.stderr
    assert "6 done already" in again.stdout
    assert (out / "results.csv").read_text().startswith(rows)
    found = results.read(out / "results.csv")
    arms = ("random", "masked_autoencoding", "places_and_matching", "after_masked")
    counts = Counter((unit.arm, unit.measure) for unit in found)
    once = set(plan["measures"]) - {"linear_probe", "classification"}  # counted apart, and without classes
    assert counts == {
        **{(arm, "linear_probe"): 2 for arm in arms},
        **{(arm, measure): 1 for arm in arms for measure in once},
    }
    weights = [
        torch.load(out / "pretraining" / "cohort" / f"{arm}_0" / "checkpoint.pt", weights_only=True)["network"]
        for arm in arms[1:]
    ]
    backbones = [{k: v for k, v in w.items() if k.startswith("backbone.")} for w in weights]
    for other in backbones[1:]:
        assert backbones[0].keys() == other.keys()
        assert all(torch.equal(value, other[name]) for name, value in backbones[0].items())
    for name in ("results.md", "cohort_learning_curves.png", "cohort_label_efficiency.png", "cohort_features.png"):
        assert (out / name).stat().st_size > 500, name
    assert (out / "cohort_registration.png").is_file()


def test_choices_are_measured_on_training_subjects(quick):
    """In files of their own."""
    out, run = quick
    options = "--arms", "random", "--measures", "propagation"
    held_back, choosing = run(*options), run(*options, "--choosing")
    assert held_back.returncode == choosing.returncode == 0, held_back.stderr + choosing.stderr
    first, second = (
        {value.case for rows in results.read(out / name).values() for value in rows if value.quantity == "dice_after"}
        for name in ("results.csv", "choosing.csv")
    )
    assert first
    assert second
    assert first.isdisjoint(second)
    assert "propagation" in (out / "choosing.md").read_text()


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


def test_an_arm_is_drawn_though_some_of_its_measures_are_missing(repository, tmp_path, monkeypatch):
    """The picture of the features needs the network alone."""
    plan = read_plan(repository / "benchmarks" / "evidence.json")
    units = list_units(plan, ["random", "places_and_matching", "places"], ["hippocampus"], ["hippocampus"], [0])
    found = {unit: [] for unit in units if (unit.arm, unit.measure) in {("random", "channels"), ("places", "rotation")}}
    evidence, drawn = run_evidence.Evidence(plan, tmp_path, tmp_path), []
    monkeypatch.setattr(run_evidence.results, "read", lambda path: found)
    monkeypatch.setattr(run_evidence, "markdown", lambda *_: "")
    for name in ("learning_curves", "label_efficiency", "registration"):
        monkeypatch.setattr(run_evidence.figures, name, lambda *_: None)
    monkeypatch.setattr(run_evidence.figures, "feature_clusters", lambda backbones, *_: drawn.extend(backbones))
    monkeypatch.setattr(evidence, "cohort", lambda *_: None)
    monkeypatch.setattr(evidence, "backbone", lambda unit: unit.arm)
    evidence.report(units)
    assert drawn == ["random", "places"]


def test_results_of_other_settings_are_not_gone_on_with(quick):
    """A measure that has changed since: refused with its name, whether or not the folder came with settings."""
    out, run = quick
    path = out.parent / "plan.json"
    before = path.read_text()
    assert run("--arms", "random", "--measures", "rotation").returncode == 0
    plan = json.loads(before)
    plan["measures"]["rotation"]["largest"] = 3.0
    path.write_text(json.dumps(plan))
    try:
        again = run("--arms", "random", "--measures", "rotation")
        assert again.returncode == 1
        assert "rotation was measured with {'largest': " in again.stderr
        assert "pass another --out" in again.stderr
        assert "Traceback" not in again.stderr
        assert run("--arms", "random", "--measures", "linear_probe").returncode == 0
    finally:
        path.write_text(before)


def test_other_weights_under_the_same_name_are_not_gone_on_with(tmp_path):
    """Results of weights that have been made anew since are refused; so are weights that are not there."""
    weights, kept = tmp_path / "model.pt", tmp_path / "results.json"
    arms = {"shipped": {"start": str(weights)}, "random": {"start": "random"}}
    plan = {"arms": arms, "sets": {"a": {}}, "measures": {"m": {}}, "budget": {}, "network": {}}
    units = [Unit("a", arm, "0", "a", "m", "1") for arm in arms]
    weights.write_bytes(b"first")

    def keep(done, wanted):
        keep_settings(kept, plan, done, wanted, lambda _: "")

    keep([], units)
    keep(units, units)
    weights.write_bytes(b"second")
    keep(units[1:], units[1:])
    with pytest.raises(InputError, match=r"shipped was measured with .*sha256.*: pass another --out"):
        keep(units, units)
    weights.unlink()
    with pytest.raises(InputError, match=r"model\.pt does not exist: leave the arm shipped out \(--arms\)"):
        keep(units, units)


@pytest.mark.parametrize("layout", ["Decathlon", "nnU-Net"])
def test_other_files_under_the_same_names_are_not_gone_on_with(tmp_path, layout):
    """A scan, a map or the list has changed, in any layout; the same elsewhere, with others beside, is no other."""
    plan = {"arms": {"random": {}}, "sets": {"a": {}}, "measures": {"m": {}}, "budget": {}, "network": {}}
    units, kept, names = [Unit("a", "random", "0", "a", "m", "1")], tmp_path / "results.json", ("x", "y")
    image, listed = (
        "imagesTr/{}.nii",
        {"training": [{"image": f"imagesTr/{n}.nii", "label": f"labelsTr/{n}.nii"} for n in names]},
    )
    if layout == "nnU-Net":
        image, listed = "imagesTr/{}_0000.nii", {"channel_names": {"0": "MRI"}, "numTraining": 2, "file_ending": ".nii"}
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        for number, name in enumerate((image, "labelsTr/{}.nii") * 2):
            path = folder / name.format(names[number // 2])
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(np.arange(512, dtype=np.uint8).reshape(8, 8, 8) % (number + 2), np.eye(4)), path)
        (folder / "dataset.json").write_text(json.dumps({**listed, "labels": {"background": 0, "shape": 1}}))
        (folder / f"{folder.name}.txt").write_text("made of it")

    def keep(done, folder):
        keep_settings(kept, plan, done, units, lambda _: digest(folder, find_scans(str(folder))))

    keep([], one)
    keep(units, other)
    for name in ("dataset.json", image.format("x"), "labelsTr/y.nii"):
        before = (other / name).read_bytes()
        changed = before + b" " if name == "dataset.json" else before[:-1] + bytes([before[-1] ^ 1])
        (other / name).write_bytes(changed)
        with pytest.raises(InputError, match=r"a was measured with .*files.*: pass another --out"):
            keep(units, other)
        (other / name).write_bytes(before)
    keep(units, other)
