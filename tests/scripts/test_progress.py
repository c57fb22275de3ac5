# SPDX-License-Identifier: Apache-2.0

"""Progress in a log file: few lines, none of them redrawn."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from ignite.engine import Engine
from scripts.data import MemoryCache, find_scans
from scripts.progress import EngineProgress, progress, say


def test_a_log_file_gets_lines(capsys):
    assert list(progress(range(1000), "Checking")) == list(range(1000))
    text = capsys.readouterr().err
    lines = text.splitlines()
    assert "\r" not in text
    assert len(lines) == 2
    assert lines[0].startswith("Checking:   0%")
    assert lines[-1].startswith("Checking: 100%")


def test_few_items_get_no_bar(capsys):
    assert list(progress(range(3), "Checking")) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_long_steps_before_a_training(make_cohort, tmp_path, capsys):
    """Checking and preparing scans redrew their lines in log files."""
    scans = find_scans(str(make_cohort(tmp_path, 24)))
    cache = MemoryCache(scans, lambda scan: scan["image"], num_workers=2)
    assert [cache[index] for index in range(24)] == [scan["image"] for scan in scans]
    text = capsys.readouterr().err
    assert "\r" not in text
    lines = text.splitlines()
    assert [line.split(":")[0] for line in lines] == ["Checking scans"] * 2 + ["Preparing scans"] * 2
    assert "24/24" in lines[1]
    assert "24/24" in lines[3]


def test_all_bars_are_of_this_kind(repository):
    drawn = {path.name for path in Path(repository, "bundle", "scripts").rglob("*.py") if "tqdm(" in path.read_text()}
    assert drawn == {"progress.py", "handlers.py"}


class Terminal(io.StringIO):
    """A stream that says it is one."""

    def isatty(self):
        return True


def test_a_line_stands_above_the_bar_on_a_terminal(monkeypatch):
    """It was written behind the bar, on the bar's line."""
    screen = Terminal()
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setattr("sys.stderr", screen)
    for number in progress(range(30), "Matching"):
        if number == 10:
            say("look at it")
    assert re.search(r"\r *\rlook at it\n\rMatching: ", screen.getvalue())


def test_an_engine_gets_one_bar(capsys):
    engine = Engine(lambda _, batch: batch)
    EngineProgress("Matching").attach(engine)
    engine.run(range(500))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "500/500" in lines[-1]


def test_an_error_ends_the_bar_and_stays_the_error(capsys):
    def step(_, batch):
        raise ValueError(f"batch {batch}")

    engine = Engine(step)
    EngineProgress("Matching").attach(engine)
    with pytest.raises(ValueError, match="batch 0"):
        engine.run(range(5))
    assert capsys.readouterr().err.endswith("\n")
