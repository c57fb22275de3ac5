# SPDX-License-Identifier: Apache-2.0

"""Handlers: what they write, and when they end training."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from scripts.errors import InputError
from scripts.training import MatchingPicture, ProgressBar, StopAtBrokenLoss
from scripts.training.checkpoints import CHECKPOINT

LOSSES = {"loss": 0.8, "matching": 0.5, "smoothness": 0.1, "restoration": 0.2}


def trainer(step=lambda engine, batch: {"losses": LOSSES}) -> Engine:
    """An engine that goes through the events of MONAI's trainer."""

    def update(engine, batch):
        engine.state.output = step(engine, batch)
        engine.fire_event(IterationEvents.LOSS_COMPLETED)
        return engine.state.output

    engine = Engine(update)
    engine.register_events(*IterationEvents)
    engine.optimizer = SimpleNamespace(param_groups=[{"lr": 0.01}])
    return engine


class TestStopAtBrokenLoss:
    @pytest.fixture
    def network(self):
        return torch.nn.Linear(2, 1)

    def attach(self, engine, folder, network, prediction=0.0):
        """With an evaluator that predicts a displacement after each epoch."""
        evaluator = Engine(lambda *_: {"pred": {"displacement": torch.tensor([0.0, prediction])}})
        StopAtBrokenLoss(str(folder), network, evaluator).attach(engine)
        engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: evaluator.run([0]))

    @pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
    def test_loss(self, tmp_path, network, value):
        """The message names the terms, where training stood, what is kept and what to do."""
        (tmp_path / CHECKPOINT).write_bytes(b"good")
        broken = {**LOSSES, "loss": float(value), "matching": float(value)}
        engine = trainer(lambda engine, _: {"losses": broken if engine.state.iteration == 3 else LOSSES})
        self.attach(engine, tmp_path, network)
        with pytest.raises(InputError) as caught:
            engine.run([0, 0], max_epochs=5)
        message = str(caught.value)
        assert f"not finite at epoch 2, iteration 3 (matching {value}, smoothness 0.1" in message
        assert f"the last good checkpoint is {tmp_path / CHECKPOINT}: lower --learning_rate" in message

    def test_weights(self, tmp_path, network):
        """A finite loss may have a broken gradient; what it leaves must not be saved."""

        def spoil(*_):
            network.weight.data[0, 1] = torch.nan
            return {"losses": LOSSES}

        engine, saved = trainer(spoil), []
        self.attach(engine, tmp_path, network)
        engine.add_event_handler(Events.EPOCH_COMPLETED, saved.append)
        with pytest.raises(InputError, match="weights are not finite after epoch 1; no epoch was completed"):
            engine.run([0], max_epochs=2)
        assert not saved

    def test_prediction(self, tmp_path, network):
        engine, saved = trainer(), []
        self.attach(engine, tmp_path, network, prediction=torch.inf)
        engine.add_event_handler(Events.EPOCH_COMPLETED, saved.append)
        with pytest.raises(InputError, match="what the network predicts is not finite after epoch 1"):
            engine.run([0], max_epochs=2)
        assert not saved

    def test_fine(self, tmp_path, network):
        engine = trainer()
        self.attach(engine, tmp_path, network)
        assert engine.run([0, 0], max_epochs=2).iteration == 4


class TestProgressBar:
    def test_counts_to_the_end_in_a_terminal(self, capsys, monkeypatch):
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        engine, evaluator = trainer(), Engine(lambda *_: None)
        evaluator.state.key_metric_name = "dice"
        ProgressBar(evaluator).attach(engine)
        engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: evaluator.state.metrics.update(dice=0.75))
        engine.run([0, 0, 0], max_epochs=2)
        first, *_, last = capsys.readouterr().err.split("\r")[1:]
        assert "dice" not in first
        assert "epoch 2/2" in last
        assert "6/6" in last
        assert "loss=0.800, matching=0.500" in last
        assert "dice=0.750" in last
        assert last.endswith("\n")

    @pytest.mark.parametrize("output", [{"loss": torch.tensor(0.5)}, [{"loss": torch.tensor(0.5)}]])
    def test_a_log_file_gets_lines(self, capsys, output):
        """Few of them, without a carriage return; here of a loss without terms, its batch taken apart or not."""
        engine = trainer(lambda *_: output)
        ProgressBar().attach(engine)
        engine.run([0, 0, 0], max_epochs=2)
        shown = capsys.readouterr().err
        assert "\r" not in shown
        lines = shown.splitlines()
        assert len(lines) == 2
        assert "0/6" in lines[0]
        assert "6/6" in lines[1]
        assert "loss=0.500" in lines[1]

    def test_ends_its_line_when_training_fails(self, capsys):
        """What is reported afterwards begins on a line of its own, and the error goes on to whom it concerns."""
        engine = trainer(lambda engine, _: {"losses": {"loss": 1 / (2 - engine.state.iteration)}})
        ProgressBar().attach(engine)

        @engine.on(Events.EXCEPTION_RAISED)
        def hand_on(error):
            raise error

        with pytest.raises(ZeroDivisionError):
            engine.run([0, 0, 0], max_epochs=1)
        assert capsys.readouterr().err.endswith("\n")


def test_picture_every_few_epochs_of_the_first_pair(tmp_path):
    """One PNG each, of the pair as it was given."""
    batch = {name: torch.rand(1, 1, 8, 9, 10) for name in ("image", "moving", "corrupted")}
    prediction = {"warped": torch.rand(1, 1, 8, 9, 10), "displacement": torch.zeros(1, 3, 8, 9, 10)}
    seen = []

    def restore(image):
        seen.append(image)
        return image

    for epoch in (1, 2, 3, 4):  # MONAI's evaluator runs once, and takes over the trainer's epoch
        engine = Engine(lambda engine, _: {"pred": prediction})
        engine.state.device = "cpu"
        engine.add_event_handler(Events.STARTED, lambda engine, epoch: setattr(engine.state, "epoch", epoch), epoch - 1)
        MatchingPicture(str(tmp_path), restore, interval=2).attach(engine)
        engine.run([batch, batch], max_epochs=epoch)
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == ["epoch_0002.png", "epoch_0004.png"]
    assert all(torch.equal(image, batch["corrupted"]) for image in seen)
    assert len(seen) == 2
