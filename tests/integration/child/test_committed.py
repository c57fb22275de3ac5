# SPDX-License-Identifier: Apache-2.0
"""The children of this repository: what the tool makes of their descriptions, with the weights they name."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import make_child
import pytest
import torch
from child.choices import DERIVED, choose
from scripts.files import load_file
from scripts.networks import UNetBackbone

DOWNSTREAM = make_child.REPOSITORY / "downstream"


@pytest.mark.parametrize("folder", sorted(DOWNSTREAM.glob("*/")), ids=lambda folder: folder.name)
def test_committed_children_borrow_the_shared_code(folder):
    assert [path.name for path in (folder / "scripts").rglob("*.py")] == ["__init__.py"]


COMMITTED = make_child.committed()
TRAINED = sorted(name for name, made in COMMITTED.items() if "training" in made)


def test_committed_children_are_what_the_tool_makes_without_any_data(tmp_path):
    assert make_child.main(["--all", "--out", str(tmp_path)]) == 0
    assert {folder.name for folder in DOWNSTREAM.glob("*/")} == set(COMMITTED)
    for name in COMMITTED:
        made = {
            path.relative_to(tmp_path): path.read_bytes() for path in (tmp_path / name).rglob("*") if path.is_file()
        }
        weights = made.pop(Path(name, "models", "model.pt"), None)
        assert (weights is None) == (name in TRAINED)
        folders = [DOWNSTREAM / name / part for part in ("configs", "docs", "scripts")]
        committed = [path for part in folders for path in part.rglob("*") if "__pycache__" not in path.parts]
        committed = [*(path for path in committed if path.is_file()), DOWNSTREAM / name / "LICENSE"]
        assert set(made) == {path.relative_to(DOWNSTREAM) for path in committed}
        for path, content in made.items():
            assert content == (DOWNSTREAM / path).read_bytes(), path


@pytest.mark.parametrize("name", TRAINED)
def test_a_description_holds_what_is_measured_on_the_data(name, shared_data):
    line = [str(shared_data / COMMITTED[name]["data"]), name, *COMMITTED[name]["arguments"]]
    arguments = make_child.command_line().parse_args(line)
    given = make_child.given_settings(arguments)
    measured = choose(arguments.dataset, name, given)
    described = json.loads((make_child.DESCRIPTIONS / f"{name}.json").read_text(encoding="utf-8"))
    assert measured.described(given) == described
    assert choose(make_child.DESCRIPTIONS / f"{name}.json", name, {}).settings == measured.settings


@pytest.mark.parametrize("name", sorted(COMMITTED))
def test_a_child_differs_from_its_template_by_its_settings_alone(name):
    """What a reader has to know of one child stands in its description."""
    described = json.loads((make_child.DESCRIPTIONS / f"{name}.json").read_text(encoding="utf-8"))
    choices = choose(make_child.DESCRIPTIONS / f"{name}.json", name, {})
    for file in ("train", "inference", "evaluate", "multi_gpu_train"):
        own, template = (
            json.loads((folder / f"{file}.json").read_text(encoding="utf-8"))
            for folder in (DOWNSTREAM / name / "configs", make_child.CHILD / choices.task)
        )
        different = {key for key in own if own[key] != template[key]}
        assert list(own) == list(template)
        assert different <= {*described["settings"], *DERIVED}
        assert not different or file in ("train", "inference")


@pytest.mark.parametrize("name", TRAINED)
def test_the_model_card_is_that_of_the_weights(name):
    card = make_child.read_card(name)
    assert card["sha256"] == hashlib.sha256((DOWNSTREAM / name / "models" / "model.pt").read_bytes()).hexdigest()
    assert card["sha256"] in (DOWNSTREAM / name / "docs" / "README.md").read_text(encoding="utf-8")
    assert card["trained"]
    assert card["pretrained_sha256"] == hashlib.sha256(make_child.PRETRAINED.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", sorted(COMMITTED))
def test_a_child_names_the_terms_of_its_beginning(name):
    assert "gvsl_ct_mr_pretraining" in (DOWNSTREAM / name / "docs" / "data_license.txt").read_text(encoding="utf-8")


def test_weights_that_nobody_trained_are_the_same_each_time(tmp_path):
    name = "coronary_ct_segmentation"
    choices = choose(make_child.DESCRIPTIONS / f"{name}.json", name, {})
    for out in ("first", "second"):
        make_child.make_child(choices, tmp_path / out, make_child.PRETRAINED, whole=False)
    first, second = (load_file(tmp_path / out / "models" / "model.pt") for out in ("first", "second"))
    pretrained = UNetBackbone.from_pretrained(make_child.PRETRAINED).state_dict()
    assert all(torch.equal(first[key], value) for key, value in second.items())
    assert all(torch.equal(first[f"backbone.{key}"], value) for key, value in pretrained.items())
