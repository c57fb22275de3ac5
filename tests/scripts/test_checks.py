# SPDX-License-Identifier: Apache-2.0

"""The table of the settings: every setting that a configuration has checked is in it, with a rule that refuses."""

from __future__ import annotations

import json

import pytest
import torch
from scripts.checks import FLAGS, NUMBERS, check_settings
from scripts.errors import InputError


def checked(path):
    """Arguments of the check in a configuration, and the configuration."""
    config = json.loads(path.read_text(encoding="utf-8"))
    steps = [step for step in config.get("initialize", []) if isinstance(step, dict)]
    for step in steps:
        if step["_target_"] == "scripts.checks.check_settings":
            return {name: value for name, value in step.items() if name != "_target_"}, config
    return {}, config


@pytest.mark.parametrize("name", ["train", "inference", "evaluate"])
def test_configurations_check_their_own_settings(repository, name):
    """Each under its own id, with a default that passes."""
    names, config = checked(repository / "bundle/configs" / f"{name}.json")
    train = json.loads((repository / "bundle/configs/train.json").read_text())
    assert names
    assert names == {name: f"@{name}" for name in names}
    defaults = {name: config.get(name, train.get(name)) for name in names}
    check_settings(**{name: value for name, value in defaults.items() if not str(value).startswith("$")})


def test_every_setting_of_a_training_is_checked(repository):
    names, config = checked(repository / "bundle/configs/train.json")
    plain = {key for key, value in config.items() if isinstance(value, bool | int | float)}
    assert plain - names.keys() <= {"cache_rate", "zoom", "zoom_out", "first_process", "save_execute_config"}


@pytest.mark.parametrize("name", ["inference", "evaluate"])
def test_every_switch_of_a_model_in_use_is_checked(repository, name):
    """A word that is taken for true in silence: '--both_ways no'."""
    names, config = checked(repository / "bundle/configs" / f"{name}.json")
    assert {key for key, value in config.items() if isinstance(value, bool)} <= names.keys()


@pytest.mark.parametrize("name", FLAGS)
def test_flags_are_true_or_false(name):
    with pytest.raises(InputError, match=f"{name} must be True or False, not 'false': write --{name} False"):
        check_settings(**{name: "false"})


@pytest.mark.parametrize("word", ["null", "maybe", 1])
def test_other_words_are_not_proposed_as_flags(word):
    """It was advised to write --bfloat16 Null, which was refused too."""
    with pytest.raises(InputError, match=r"write --bfloat16 True or --bfloat16 False$"):
        check_settings(bfloat16=word)


@pytest.mark.parametrize("name", NUMBERS)
def test_words_are_no_numbers(name):
    with pytest.raises(InputError, match=f"{name} must be .*, not 'many': pass --{name}"):
        check_settings(**{name: "many"})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epochs": 0}, "a whole number of 1 or more"),
        ({"batch_size": 1.5}, "a whole number"),
        ({"learning_rate": -1}, "a number of 0 or more"),
        ({"seed": True}, "a whole number"),
        ({"spatial_size": [32, 32]}, "3 whole numbers"),
        ({"pixdim": [1, 1, 0]}, "3 numbers of 0.001 or more"),
        ({"features": 8}, "a list of whole numbers"),
        ({"window": [0]}, "2 numbers"),
        ({"orientation": "RAX"}, "orientation must have"),
    ],
)
def test_refusals(given, message):
    with pytest.raises(InputError, match=message):
        check_settings(**given)


def test_a_setting_that_nobody_knows_is_a_mistake_of_the_configuration():
    with pytest.raises(KeyError):
        check_settings(epoch=1)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "", None])
def test_a_device_that_is_not_there_is_refused(device):
    """It ended in a traceback of the first tensor."""
    with pytest.raises(InputError, match=rf"^device {device} cannot be used, of cpu.*: pass --device c.*, or leave"):
        check_settings(device=device)


def test_devices_as_pytorch_names_them():
    check_settings(device="cpu")
    check_settings(device=torch.device("cpu", 0))
