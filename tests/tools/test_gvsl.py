# SPDX-License-Identifier: Apache-2.0

"""The commands without make: which plain commands they run, and that training needs nothing that only Linux has."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import gvsl
import pytest
import torch

CONFIGS = gvsl.BUNDLE.as_posix() + "/configs"
RUN = ["-m", "monai.bundle", "run", "--bundle_root", str(gvsl.BUNDLE), "--config_file"]


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What is run in place of the commands."""
    commands: list[list[str]] = []

    def run(command: list[str], check: bool) -> SimpleNamespace:
        assert command[0] == sys.executable
        commands.append(command[1:])
        return SimpleNamespace(returncode=3 if "fail" in command else 0)

    monkeypatch.setattr(subprocess, "run", run)
    return commands


def test_a_training_on_scans_is_planned_and_takes_ids(ran: list[list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--pixdim", "[1,1,2]", "--window", "[-100,300]", "--memory", "8"]
    assert gvsl.main(["pretrain", "--data", "my scans", "--out", "o", "--overlay", "segresnet", *given]) == 0
    files = f"['{CONFIGS}/train.json','{CONFIGS}/plan.json','{CONFIGS}/segresnet.json']"
    assert ran == [[*RUN, files, "--dataset_dir", "my scans", "--output_dir", "o", *given]]
    assert "-m monai.bundle run" in capsys.readouterr().out


def test_a_training_without_scans_makes_phantoms_first(
    ran: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gvsl, "PHANTOMS", tmp_path)
    assert gvsl.main(["pretrain", "--epochs", "1"]) == 0
    assert ran[0] == [str(gvsl.TOOLS / "make_phantoms.py"), str(tmp_path), "--subjects", "12"]
    assert ran[1][-4:] == ["--output_dir", "runs/demo", "--epochs", "1"]


def test_a_training_starts_from_a_model(ran: list[list[str]]) -> None:
    """Before, it began with random weights."""
    for option in ("--model", "--pretrained"):
        assert gvsl.main(["pretrain", "--data", "d", option, "m.pt", "--epochs", "1"]) == 0
        assert ran[-1][-4:] == ["--pretrained", "m.pt", "--epochs", "1"]


def test_overlays_are_applied_last(ran: list[list[str]], tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text("{}")
    given = ["--data", "d", "--model", str(tmp_path / "model.pt"), "--overlay", "segresnet", "--overlay", "demo"]
    for command in ("report", "probe"):
        assert gvsl.main([command, *given]) == 0
        assert ran[-1][len(RUN)].endswith(f",'{CONFIGS}/segresnet.json','{CONFIGS}/demo.json']")
    assert gvsl.main(["carry", *given[:-2], "--atlas", "a", "--label", "l"]) == 0
    assert ran[-1][len(RUN)].endswith(f"/settings.json','{CONFIGS}/segresnet.json']")


def test_phantoms_elsewhere(ran: list[list[str]]) -> None:
    assert gvsl.main(["phantoms", "--out", "o", "--subjects", "3", "--seed", "1"]) == 0
    assert ran == [[str(gvsl.TOOLS / "make_phantoms.py"), "o", "--subjects", "3", "--seed", "1"]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["phantoms", "--model", "m"], "phantoms does not use --model: its own options are --out, --subjects"),
        (["zoo", "--model=m"], "zoo does not use --model: its own"),
        (["report", "--data", "d", "--model", "m", "--subjects", "3"], "report does not use --subjects: its own"),
        (["zoo", "--overlay", "segresnet"], "zoo does not use --overlay: its own options are --out"),
        (["pretrain", "--data", "d", "--subjects", "3"], "--subjects is of phantoms, --data of scans: leave one"),
        (["report", "--data", "d", "--model", "m", "--overlay", "none"], "none.json does not exist: name a file of"),
        (["carry", "--data", "d", "--atlas", "a", "--label", "l", "--overlay", "paper"], "and carry has no 'loss'"),
    ],
)
def test_an_option_that_would_not_be_used_is_refused(
    ran: list[list[str]], given: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        gvsl.main(given)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert ran == []


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not there")
@pytest.mark.parametrize(
    ("given", "passed"),
    [
        (["pretrain", "DATA=d", "MODEL=m"], 'tools/gvsl.py pretrain --data "d" --model "m"'),
        (["pretrain", "SUBJECTS=3"], "tools/gvsl.py pretrain --subjects 3"),
        (["phantoms", "OUT=o", "ARGS=--seed 1"], 'tools/gvsl.py phantoms --out "o" --seed 1'),
        (["zoo", "MODEL=m"], "make zoo does not use MODEL=: it takes OUT ARGS"),
        (["child", "DATASET=d", "NAME=n", "MODEL=m"], 'tools/gvsl.py child --dataset "d" --name "n" --model "m"'),
        (["carry", "ATLAS=a", "LABEL=l", "DATA=d", "SUBJECTS=3"], "make carry does not use SUBJECTS="),
    ],
)
def test_make_passes_a_variable_on_or_refuses_it(repository: Path, given: list[str], passed: str) -> None:
    command = ["make", "-n", "-C", str(repository), *given]
    made = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "NAME": "host"})
    assert passed in " ".join((made.stdout + made.stderr).split())
    assert (made.returncode == 0) == ("gvsl.py" in passed)


def test_a_report_takes_the_settings_beside_the_model(ran: list[list[str]], tmp_path: Path) -> None:
    model = tmp_path / "model.pt"
    rest = ["--model", str(model), "--dataset_dir", "d", "--output_dir", "runs/report"]
    assert gvsl.main(["report", "--model", str(model), "--data", "d"]) == 0
    (tmp_path / "settings.json").write_text("{}")
    assert gvsl.main(["report", "--model", str(model), "--data", "d"]) == 0
    settings = (tmp_path / "settings.json").as_posix()
    assert ran == [
        [*RUN, f"['{CONFIGS}/train.json','{CONFIGS}/evaluate.json'{more}]", *rest] for more in ("", f",'{settings}'")
    ]


def test_a_probe_takes_the_shipped_weights_or_ones_of_a_run(ran: list[list[str]], tmp_path: Path) -> None:
    model = tmp_path / "model.pt"
    (tmp_path / "settings.json").write_text("{}")
    assert gvsl.main(["probe", "--data", "d", "--steps", "9"]) == 0
    assert gvsl.main(["probe", "--data", "d", "--out", "o", "--model", str(model)]) == 0
    shipped = str(gvsl.BUNDLE / "models" / "model.pt")
    rest = ["--model", shipped, "--dataset_dir", "d", "--output_dir", "runs/probe", "--steps", "9"]
    files = f"['{CONFIGS}/train.json','{(tmp_path / 'settings.json').as_posix()}','{CONFIGS}/probe.json']"
    assert ran == [
        [*RUN, f"['{CONFIGS}/train.json','{CONFIGS}/probe.json']", *rest],
        [*RUN, files, "--model", str(model), "--dataset_dir", "d", "--output_dir", "o"],
    ]


def test_labels_are_carried_by_the_bundle_s_weights_or_one_s_own(ran: list[list[str]], tmp_path: Path) -> None:
    """On a planned grid, or on that of the model's training where its settings lie beside it."""
    (tmp_path / "settings.json").write_text("{}")
    model, given = tmp_path / "model.pt", ["--atlas", "[a,b]", "--label", "labels", "--data", "d"]
    assert gvsl.main(["carry", *given, "--refine", "20"]) == 0
    assert gvsl.main(["carry", *given, "--model", str(model), "--out", "o"]) == 0
    files = ",".join(f"'{CONFIGS}/{name}.json'" for name in ("inference", "propagate", "plan", "carry"))
    rest = ["--atlas", "[a,b]", "--atlas_label", "labels", "--dataset_dir", "d", "--output_dir"]
    shipped = str(gvsl.BUNDLE / "models" / "model.pt")
    assert ran == [
        [*RUN, f"[{files}]", "--model", shipped, *rest, "runs/carry", "--refine", "20"],
        [*RUN, f"[{files},'{(tmp_path / 'settings.json').as_posix()}']", "--model", str(model), *rest, "o"],
    ]


def test_the_tools(ran: list[list[str]]) -> None:
    name = ["--dataset", "d", "--name", "liver_ct_segmentation"]
    assert gvsl.main(["child", *name, "--out", "o", "--pixdim", "1", "1", "1"]) == 0
    assert gvsl.main(["zoo"]) == 0
    make = [str(gvsl.TOOLS / "make_child.py"), "d", "liver_ct_segmentation", "--out", "o", "--pixdim", "1", "1", "1"]
    assert ran == [make, [str(gvsl.TOOLS / "make_zoo.py")]]


def test_the_exit_code_is_that_of_the_command(ran: list[list[str]]) -> None:
    assert gvsl.main(["zoo", "fail"]) == 3


def test_the_folder_of_a_run_stands_for_its_weights(ran: list[list[str]], tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text("{}")
    model = str(tmp_path / "model.pt")
    for command in (["report"], ["probe"], ["carry", "--atlas", "a", "--label", "l"], ["pretrain"]):
        assert gvsl.main([*command, "--data", "d", "--model", str(tmp_path)]) == 0
        assert model in ran[-1]
        assert any("settings.json" in word for word in ran[-1]) == (command != ["pretrain"])
    assert gvsl.main(["child", "--dataset", "d", "--name", "n", "--model", str(tmp_path)]) == 0
    assert ran[-1][-2:] == ["--start", model]


@pytest.mark.parametrize("content", ["", '{"pixdim": [3,', "[1, 2]"])
@pytest.mark.parametrize("command", [["report"], ["probe"], ["carry", "--atlas", "a", "--label", "l"]])
def test_damaged_settings_beside_weights_are_named(
    ran: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str], content: str
) -> None:
    (tmp_path / "settings.json").write_text(content)
    with pytest.raises(SystemExit):
        gvsl.main([*command, "--data", "d", "--model", str(tmp_path / "model.pt")])
    assert f"{tmp_path / 'settings.json'} is damaged: copy it anew" in capsys.readouterr().err
    assert not ran


@pytest.mark.parametrize("given", [["report", "--data", "d"], ["no_such_command"], []])
def test_mistakes_get_one_line(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        gvsl.main(given)
    error = capsys.readouterr().err
    assert error.startswith("gvsl")
    assert error.count("\n") == 1


def test_what_loading_processes_are_given_can_be_sent(cohort: Path, tmp_path: Path, workflow: Callable) -> None:
    """Windows and macOS start them anew ("spawn"): nothing that they need may live in this process alone."""
    made = workflow(cohort, tmp_path)
    made.initialize()
    for part in ("train#dataset", "train#sampler", "validate#dataset"):
        given = made.parser.get_parsed_content(part)
        sent = pickle.loads(pickle.dumps(given))
        if part == "train#dataset":
            assert torch.equal(sent[5]["image"], given[5]["image"])
        assert len(sent) == len(given)


def test_training_needs_nothing_that_windows_lacks(
    cohort: Path, tmp_path: Path, pretrain, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("not here")

    for module, names in {
        signal: ["SIGCHLD", "SIGUSR1", "SIGKILL"],
        os: ["fork"],
    }.items():
        for name in names:
            monkeypatch.delattr(module, name, raising=False)
    for name in ("link", "symlink"):
        monkeypatch.setattr(os, name, refuse)
    for name in ("fcntl", "resource", "pwd", "grp", "termios"):
        monkeypatch.setitem(sys.modules, name, None)
    assert len(pretrain(cohort, tmp_path, epochs=1, cache_dir=str(tmp_path / "cache"))) == 1
    assert (tmp_path / "checkpoint_0001.pt").is_file()


def test_a_pattern_without_quotes_is_told_before_anything_runs(
    ran: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """The shell makes several values of it; MONAI takes the second one for the id to run."""
    needed = ["--label", "l.nii", "--data", "d"]
    for words in (["--atlas", "a.nii", "b.nii", "c.nii", *needed], ["--atlas=a.nii", "b.nii", *needed]):
        with pytest.raises(SystemExit):
            gvsl.main(["carry", *words])
        assert capsys.readouterr().err == (
            "gvsl: error: 'b.nii' belongs to no option: write a pattern, or a list of several values, in quotes\n"
        )
    assert ran == []
    assert gvsl.main(["child", "--dataset", "d", "--name", "n", "--features", "4", "8"]) == 0
