# SPDX-License-Identifier: Apache-2.0

"""What is typed is what is meant: no date becomes a number, no misspelt option is taken in silence."""

from __future__ import annotations

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripts.command_line import as_meant, check_command_line, given_options, nearest
from scripts.errors import InputError


@pytest.fixture
def config(tmp_path):
    """A configuration, and an overlay that brings an id of its own."""
    content = {
        "output_dir": "x",
        "dataset_dir": "y",
        "epochs": 1,
        "epoch_length": 2,
        "learning_rate": 0.1,
        "train": {"dataloader": {"_target_": "DataLoader", "num_workers": 0}, "handlers": [{"_target_": "X"}]},
    }
    (tmp_path / "train.json").write_text(json.dumps(content))
    (tmp_path / "overlay.json").write_text(json.dumps({"timeout": 3, "dataset_dir": "z"}))
    return f"['{tmp_path / 'train.json'}','{tmp_path / 'overlay.json'}']"


def typed(config, *words):
    resolved: dict = {}
    check_command_line(lambda: resolved, ["--config_file", config, *words])
    return resolved


@pytest.mark.parametrize(
    "text", ["2024_06_01", "007", "1e5", "1.5", "0x10", "1_000", "True", "inf", "a#1", "a b", "{a}"]
)
def test_a_path_is_what_was_typed(config, text):
    for words in (("--output_dir", text), (f"--output_dir={text}",), ("--output-dir", text)):
        assert typed(config, *words) == {"output_dir": text}


@given(
    st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1).filter(
        lambda t: t[0] not in "-$@%~'\""
    )
)
def test_any_name_of_a_folder_stays(text):
    assert as_meant(text) == (None if text.strip(" ") == "None" else text)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("[2024_06_01,b]", ["2024_06_01", "b"]),
        ("['x/1','y']", ["x/1", "y"]),
        ("1,2", ["1", "2"]),
        ("20240315", "20240315"),
        ("None", None),
        ("'2024_06'", "2024_06"),
        ("$@bundle_root", "$@bundle_root"),
    ],
)
def test_lists_of_paths(config, text, meant):
    assert typed(config, "--dataset_dir", text) == {"dataset_dir": meant}


def test_what_exists_is_no_list(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "[1]").mkdir()
    (tmp_path / "1,2").mkdir()
    assert typed(config, "--dataset_dir", "[1]") == {"dataset_dir": "[1]"}
    assert typed(config, "--dataset_dir", "1,2") == {"dataset_dir": "1,2"}


@pytest.mark.parametrize(
    ("option", "advice"),
    [
        ("--epoch", "did you mean --epochs?"),
        ("--datset_dir", "did you mean --dataset_dir?"),
        ("--learning-rat", "did you mean --learning_rate?"),
        ("--EPOCHS", "did you mean --epochs?"),
        ("--train#dataloder#num_workers", "did you mean --train#dataloader?"),
        ("--train::handler", "did you mean --train#handlers?"),
        ("--train#handlers#4", "is no setting of train.json"),
        ("--config_fil", "did you mean --config_file?"),
        ("--zzz", "is no setting of train.json"),
    ],
)
def test_misspelt_options_are_refused_with_the_nearest(config, option, advice):
    with pytest.raises(InputError) as caught:
        typed(config, option, "5")
    assert advice in str(caught.value)
    assert str(caught.value).startswith(option.replace("g-r", "g_r"))


def test_options_that_there_are(config):
    """Ids of all files, dashes for underscores, nested ids, new arguments of components, options of MONAI itself."""
    words = ["run", "--learning-rate", "0.1", "--timeout", "4", "--train#dataloader#pin_memory", "True", "--epochs=3"]
    assert typed(config, "--train::handlers::0", "x", *words[1:], "--run_id", "run", "--logging_file", "False") == {}
    assert typed(config, "--tracking", "mlflow", "--experiment_name", "7") == {"experiment_name": "7"}


def test_none_is_refused_where_monai_would_keep_what_there_is(config, tmp_path):
    for option in ("epochs", "train#dataloader#num_workers", "train#dataloader#pin_memory", "train#handlers#0"):
        with pytest.raises(InputError, match=f'--{option} None: MONAI keeps .*"{option}": null'):
            typed(config, f"--{option}", "None")
    (tmp_path / "null.json").write_text(json.dumps({"train#dataloader#num_workers": None, "epochs": None}))
    with_nulls = config.replace("]", f",'{tmp_path / 'null.json'}']")
    typed(with_nulls, "--epochs", "None", "--train#dataloader#num_workers", "None")
    typed(config, "--dataset_dir", "None", "--timeout", "4")


def test_values_without_an_option_and_options_without_a_value(config):
    with pytest.raises(InputError, match=r"'b\.nii' belongs to no option.*in quotes"):
        typed(config, "--epochs", "3", "b.nii")
    with pytest.raises(InputError, match="--output_dir has no value"):
        typed(config, "--output_dir")


def test_other_programs_keep_their_command_line(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/x/monailabel/main.py", "run", "--epoch", "5", "--output_dir", "2024"])
    resolved: dict = {}
    check_command_line(lambda: resolved)
    assert resolved == {}


def test_parts():
    assert given_options(["--a", "1", "--b=2=3", "--c", "-d", "x", "y"]) == (
        {"a": "1", "b": "2=3", "c": None, "d": "x"},
        ["y"],
    )
    assert nearest("a#b", {"a": "@c"}) is None  # MONAI resolves references


def test_a_path_that_begins_with_a_dash(config):
    with pytest.raises(InputError, match=r"a path that begins with '-' is written ./-scans"):
        typed(config, "--dataset_dir", "-scans")
    assert typed(config, "--dataset_dir", "./-scans") == {"dataset_dir": "./-scans"}
    with pytest.raises(InputError, match="did you mean --epochs"):
        typed(config, "--epoch", "5")


def test_a_folder_that_is_none(config):
    with pytest.raises(InputError, match=r"write ./None for one of that name"):
        typed(config, "--output_dir", "None")
    assert typed(config, "--output_dir", "./None") == {"output_dir": "./None"}
