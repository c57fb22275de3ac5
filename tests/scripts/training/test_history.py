# SPDX-License-Identifier: Apache-2.0

"""The course of a training: what is logged of a step, the table of the epochs, the summary."""

from __future__ import annotations

import csv
import re
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Engine, Events
from scripts.errors import InputError
from scripts.training import History, step_scalars


def test_scalars_of_a_step_follow_loss_and_schedule():
    """They are read when they are asked for, under names that no average of an epoch has."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.5)
    scalars = step_scalars(optimizer)
    optimizer.param_groups[0]["lr"] = 0.125
    assert scalars({"losses": {"loss": 0.75, "matching": 0.25, "smoothness": 0.5}}) == {
        "step/loss": 0.75,
        "step/matching": 0.25,
        "step/smoothness": 0.5,
        "step/learning_rate": 0.125,
    }


class TestHistory:
    def run(self, folder, epochs, start=0, value=0.0, interval=1):
        """An engine whose epochs have a loss of ``value + epoch``; validated every ``interval`` epochs."""
        evaluator = SimpleNamespace(state=SimpleNamespace(metrics={}))
        engine = Engine(lambda *_: None)
        engine.optimizer = SimpleNamespace(param_groups=[{"lr": 0.01}])

        @engine.on(Events.STARTED)
        def go_on():
            engine.state.epoch = start

        @engine.on(Events.EPOCH_COMPLETED)
        def measure():
            names = ("train_loss", "matching", "smoothness", "restoration", "new_term")
            engine.state.metrics = dict.fromkeys(names, value + engine.state.epoch)
            after = 0.5 + engine.state.epoch / 100
            evaluator.state.metrics = {"ncc_before": 0.5, "ncc_after": after, "folded_percentage": 0.25}

        History(str(folder), evaluator, interval).attach(engine)
        engine.run([0], max_epochs=epochs)
        with (folder / "history.csv").open() as file:
            return list(csv.DictReader(file))

    def test_one_row_an_epoch(self, tmp_path):
        rows = self.run(tmp_path, 4, interval=2)
        assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
        assert [row["train_loss"] for row in rows] == ["1.0", "2.0", "3.0", "4.0"]
        assert [row["ncc_after"] for row in rows] == ["", "0.52", "", "0.54"]
        assert {row["learning_rate"] for row in rows} == {"0.01"}

    def test_resumed_epochs_replace_theirs(self, tmp_path):
        """A row written just before an interruption, whose checkpoint was not, gives way."""
        self.run(tmp_path, 3)
        rows = self.run(tmp_path, 4, start=2, value=10)
        assert [row["train_loss"] for row in rows] == ["1.0", "2.0", "13.0", "14.0"]

    def test_a_table_that_a_spreadsheet_has_saved(self, tmp_path):
        """Is gone on with; one that is no table of epochs any more is refused until it is moved away."""
        self.run(tmp_path, 2)
        path = tmp_path / "history.csv"
        path.write_text(path.read_text().replace(",", ";").replace(".", ","), encoding="utf-8-sig")
        assert [row["train_loss"] for row in self.run(tmp_path, 3, start=2)] == ["1.0", "2.0", "3.0"]
        path.write_text("epoch,train_loss\n1,much\n")
        with pytest.raises(InputError, match=r"history\.csv is not as a run wrote it .*move it away"):
            self.run(tmp_path, 4, start=3)
        path.rename(tmp_path / "before.csv")
        assert [row["epoch"] for row in self.run(tmp_path, 4, start=3)] == ["4"]

    def test_fresh_run_forgets_an_old_history(self, tmp_path):
        self.run(tmp_path, 3)
        assert [row["train_loss"] for row in self.run(tmp_path, 2, value=10)] == ["11.0", "12.0"]

    def test_summary(self, tmp_path, capsys):
        self.run(tmp_path, 3)
        shown = capsys.readouterr().out
        for line in (
            r"Pre-training ended after epoch 3",
            r"train loss +1\.0000 +3\.0000",
            r"new term +1\.0000 +3\.0000",
            r"held-back pairs, epoch 3 +unmatched +matched",
            r"NCC \(1 is equal\) +0\.5000 +0\.5300",
            r"folded voxels, % +0\.2500",
        ):
            assert re.search(line, shown), line
        assert str(tmp_path / "curves.png") in shown
        assert (tmp_path / "curves.png").stat().st_size > 5000
