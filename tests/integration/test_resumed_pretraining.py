# SPDX-License-Identifier: Apache-2.0

"""Pre-training goes on exactly where it stopped."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from ignite.engine import Events
from kill_and_resume import same
from support import load


class Interruption(Exception):
    """The power fails."""


def interrupt(made, event) -> None:
    """Run an initialised workflow until ``event`` of its trainer."""
    trainer = made.parser.get_parsed_content("train#trainer")

    def fail() -> None:
        raise Interruption

    trainer.add_event_handler(event, fail)
    with pytest.raises(RuntimeError) as caught:
        made.run()
    error: BaseException | None = caught.value
    while error is not None and not isinstance(error, Interruption):
        error = error.__cause__ or error.__context__
    assert error is not None, caught.value


class TestResume:
    @pytest.mark.parametrize(
        ("event", "workers"),
        [(Events.EPOCH_STARTED(once=3), 0), (Events.ITERATION_COMPLETED(once=8), 1)],
        ids=["between epochs", "amid an epoch"],
    )
    def test_interrupted_is_as_uninterrupted(self, cohort, tmp_path, workflow, pretrain, event, workers):
        """After two of four epochs everything comes back: weights, optimiser, schedule, history, best."""
        settings = {"epochs": 4, "num_workers": workers}
        whole, parts = tmp_path / "whole", tmp_path / "parts"
        expected = pretrain(cohort, whole, **settings)
        made = workflow(cohort, parts, **settings)
        made.initialize()
        interrupt(made, event)
        assert load(parts / "checkpoint.pt")["epoch"] == 2
        torch.rand(5), np.random.rand(5)  # another process has another random state
        resumed = pretrain(cohort, parts, resume=True, **settings)
        assert resumed == expected
        first, second = load(whole / "checkpoint.pt"), load(parts / "checkpoint.pt")
        for name in first:
            assert same(first[name], second[name]), name
        assert same(load(whole / "model.pt"), load(parts / "model.pt"))

    def test_nothing_to_resume_is_a_fresh_start(self, cohort, tmp_path, pretrain):
        fresh = pretrain(cohort, tmp_path / "fresh", epochs=1)
        assert pretrain(cohort, tmp_path / "resumed", epochs=1, resume=True) == fresh

    def test_more_epochs_follow_the_longer_schedule(self, cohort, tmp_path, pretrain):
        """A finished run taken up with more epochs goes on at the rate that the longer cosine has there, not at 0."""
        pretrain(cohort, tmp_path, epochs=2, learning_rate=0.001)
        rows = pretrain(cohort, tmp_path, epochs=4, learning_rate=0.001, resume=True)
        expected = [0.001 * (1 + math.cos(math.pi * epoch / 4)) / 2 for epoch in (2, 3)]
        assert [float(row["learning_rate"]) for row in rows[2:]] == pytest.approx(expected)

    def test_finished_run_stays_as_it_is(self, cohort, tmp_path, pretrain):
        rows = pretrain(cohort, tmp_path, epochs=1)
        before = load(tmp_path / "checkpoint.pt")
        assert pretrain(cohort, tmp_path, epochs=1, resume=True) == rows
        assert same(load(tmp_path / "checkpoint.pt"), before)
