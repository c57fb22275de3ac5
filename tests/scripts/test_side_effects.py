# SPDX-License-Identifier: Apache-2.0

"""The bundle is a guest where it is not the program: nothing of the process changes by importing or setting it up."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import threading

import pytest
from ignite.engine import Events
from scripts import errors

IMPORT_ALL = """
import json, logging, pkgutil, signal, sys, threading
import matplotlib, monai.bundle, nibabel, torch
from monai.transforms import SUPPORTED_READERS

def state():
    return repr([
        sys.excepthook, threading.excepthook, signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM),
        list(SUPPORTED_READERS), nibabel.Nifti1Header.quaternion_threshold, matplotlib.get_backend(auto_select=False),
        logging.getLogger().level, logging.getLogger().handlers, logging.getLogger("ignite").level,
        torch.get_num_threads(), torch.backends.mkldnn.enabled, sys.path, torch.get_rng_state().sum(),
    ])

before = state()
import scripts
names = [module.name for module in pkgutil.walk_packages(scripts.__path__, "scripts.")]
for name in names:
    __import__(name)
print(json.dumps([before, state(), names]))
"""


def test_importing_changes_nothing(repository):
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL],
        cwd=repository / "bundle",
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    before, after, names = json.loads(done.stdout.splitlines()[-1])
    assert {"scripts.plots", "scripts.data.reading", "scripts.evaluation.report.planes"} <= set(names)
    assert after == before


def test_training_needs_no_matplotlib(repository):
    """The server of MONAI Label trains children in an environment without it."""
    packages = ("data", "finetuning", "losses", "matching", "networks", "plots", "training", "transforms")
    told = "import sys; sys.modules['matplotlib'] = None\n" + "\n".join(f"import scripts.{name}" for name in packages)
    done = subprocess.run(
        [sys.executable, "-c", told],
        cwd=repository / "bundle",
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def program(monkeypatch):
    """Say which program this process runs: ``python -m NAME``, with further arguments."""

    def set_up(name: str | None, *arguments: str) -> None:
        spec = None if name is None else type("Spec", (), {"name": f"{name}.__main__"})
        monkeypatch.setattr(sys.modules["__main__"], "__spec__", spec)
        monkeypatch.setattr(sys, "argv", ["program", *arguments])

    return set_up


@pytest.fixture
def logs():
    """The levels of the loggers, put back afterwards."""
    loggers = [logging.getLogger(), logging.getLogger("ignite")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.INFO)
    yield lambda: [logger.level for logger in loggers]
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)


class TestReportInputErrors:
    @pytest.mark.parametrize("name", ["monailabel.interfaces.utils.app", "pytest", "monai_other", None])
    def test_another_program_keeps_its_hooks_and_logs(self, restored_process, program, logs, name):
        program(name)
        before = sys.excepthook, threading.excepthook
        errors.report_input_errors()
        assert (sys.excepthook, threading.excepthook) == before
        assert logs() == [logging.INFO, logging.INFO]

    def test_the_command(self, restored_process, program, logs, capsys):
        program("monai.bundle", "run")
        errors.report_input_errors()
        sys.excepthook(errors.InputError, errors.InputError("scan.nii is damaged"), None)
        assert capsys.readouterr().err == "error: scan.nii is damaged\n"
        assert logs() == [logging.WARNING, logging.CRITICAL]

    def test_logs_that_are_asked_for(self, restored_process, program, logs):
        program("monai.bundle", "run", "--logging_file", "mine.conf")
        errors.report_input_errors()
        assert logs() == [logging.INFO, logging.INFO]


def test_a_training_leaves_hooks_and_signals_alone(workflow, cohort, tmp_path):
    """As in a notebook, a federated client or the server of MONAI Label."""
    seen = []

    def state():
        return sys.excepthook, threading.excepthook, signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    before = state()
    made = workflow(cohort, tmp_path, epochs=1, epoch_length=1)
    made.initialize()
    trainer = made.parser.get_parsed_content("train#trainer")
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: seen.append(state()))
    made.run()
    assert seen == [before]


def test_logs_of_a_server_are_shown(repository):
    """What ``configs/logging.conf`` leaves of them: the server's own lines, and those of ignite's engines."""
    told = """
import logging
from logging.config import fileConfig
fileConfig("configs/logging.conf", disable_existing_loggers=False)
logging.getLogger("monailabel.tasks.train.bundle").info("Training Finished")
logging.getLogger("ignite.engine.engine.SupervisedTrainer").info("Restored all variables from model.pt")
"""
    done = subprocess.run(
        [sys.executable, "-c", told], cwd=repository / "bundle", capture_output=True, text=True, timeout=60, check=True
    )
    assert "Training Finished" in done.stdout
    assert "Restored all variables" in done.stdout
