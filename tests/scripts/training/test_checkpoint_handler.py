# SPDX-License-Identifier: Apache-2.0

"""The state of a training: whatever ends it between two steps, nothing is lost."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import time

import pytest
import torch
from ignite.engine import Events
from kill_and_resume import same
from scripts.errors import InputError, user_message
from scripts.files import load_file, save_atomically
from scripts.training import checkpoint_handler as training_state
from scripts.training import interruptions, keep_copy, kept_copies


@pytest.fixture(autouse=True)
def as_command(monkeypatch):
    """Signals are listened to as where the command trains."""
    monkeypatch.setattr(interruptions, "is_command", lambda: True)


def compare_with_uninterrupted(cohort, tmp_path, pretrain, **settings):
    """Take up the run in ``parts`` and compare its files with those of a run that was never interrupted."""
    rows = pretrain(cohort, tmp_path / "whole", **settings)
    assert pretrain(cohort, tmp_path / "parts", resume=True, **settings) == rows
    whole, parts = (load_file(tmp_path / name / "checkpoint.pt") for name in ("whole", "parts"))
    assert same(whole, parts)
    whole, parts = (load_file(tmp_path / name / "model.pt") for name in ("whole", "parts"))
    assert same(whole, parts)


@pytest.fixture
def stopped(cohort, tmp_path, workflow):
    """Train in ``parts`` until a handler, called at ``event``, ends it; returns what was raised."""

    def run(event, handler, error=BaseException, **settings):
        made = workflow(cohort, tmp_path / "parts", **settings)
        made.initialize()
        trainer = made.parser.get_parsed_content("train#trainer")
        trainer.add_event_handler(event, handler)
        with pytest.raises(error) as caught:
            made.run()
        return caught.value

    return run


@pytest.fixture
def kill_worker():
    """Kill a process that loads data, or send it another signal; not those that earlier tests have left behind."""
    others = multiprocessing.active_children()

    def kill(*, number=signal.SIGKILL):
        worker = next(child for child in multiprocessing.active_children() if child not in others)
        os.kill(worker.pid, number)
        time.sleep(0.5)  # the main process goes on meanwhile

    return kill


class TestStopBetweenSteps:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_signal(self, cohort, tmp_path, stopped, pretrain, number):
        """The step at hand is finished and saved with the epoch's averages; the run goes on as if nothing was."""
        before = signal.getsignal(number)
        settings = {"epochs": 2, "epoch_length": 4, "num_workers": 1}
        error = stopped(
            Events.ITERATION_STARTED(once=6), lambda: os.kill(os.getpid(), number), KeyboardInterrupt, **settings
        )
        assert f"saved in {tmp_path / 'parts' / 'checkpoint.pt'}: 1 epochs and 2 steps" in str(error)
        assert "--resume True" in str(error)
        assert signal.getsignal(number) is before
        compare_with_uninterrupted(cohort, tmp_path, pretrain, **settings)

    def test_signal_during_validation(self, tmp_path, stopped):
        """The epoch is saved first."""
        settings = {"epochs": 2, "val_interval": 1}
        error = stopped(
            Events.EPOCH_COMPLETED(once=1), lambda: os.kill(os.getpid(), signal.SIGTERM), KeyboardInterrupt, **settings
        )
        assert "1 epochs; the same command" in str(error)

    def test_second_ctrl_c_ends_at_once(self, tmp_path, stopped):
        def twice():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

        error = stopped(Events.ITERATION_STARTED(once=2), twice, KeyboardInterrupt)
        assert not str(error)
        assert not (tmp_path / "parts" / "checkpoint.pt").exists()

    def test_every_few_steps(self, cohort, tmp_path, stopped, pretrain):
        """Killed later, the run goes on from the last checkpoint within the epoch."""

        def fail():
            raise SystemExit

        settings = {"epochs": 2, "epoch_length": 5, "checkpoint_interval": 2, "batch_size": 2}
        stopped(Events.ITERATION_STARTED(once=10), fail, SystemExit, **settings)
        state = load_file(tmp_path / "parts" / "checkpoint.pt")
        assert (state["epoch"], state["step"]) == (1, 4)
        compare_with_uninterrupted(cohort, tmp_path, pretrain, **settings)

    def test_only_after_whole_accumulated_steps(self, cohort, tmp_path, stopped, pretrain):
        settings = {"epochs": 1, "epoch_length": 6, "accumulation_steps": 2}
        stopped(Events.ITERATION_STARTED(once=3), lambda: os.kill(os.getpid(), signal.SIGTERM), **settings)
        assert load_file(tmp_path / "parts" / "checkpoint.pt")["step"] == 4
        compare_with_uninterrupted(cohort, tmp_path, pretrain, **settings)

    def test_data_that_cannot_be_read(self, cohort, tmp_path, stopped, pretrain, capsys):
        """What was trained until then is saved."""

        def fail():
            raise OSError("the disk is gone")

        stopped(Events.GET_BATCH_STARTED(once=2), fail, RuntimeError, epochs=1)
        assert "0 epochs and 2 steps" in capsys.readouterr().err
        compare_with_uninterrupted(cohort, tmp_path, pretrain, epochs=1)

    @pytest.mark.parametrize(
        ("moment", "kept"), [(Events.ITERATION_STARTED(once=4), 2), (Events.GET_BATCH_STARTED(once=3), 3)]
    )
    def test_killed_worker(self, cohort, tmp_path, stopped, pretrain, kill_worker, moment, kept):
        """As when memory runs out: one line says what helps. Amid a step the last checkpoint is what there is."""
        settings = {"epochs": 1, "epoch_length": 6, "num_workers": 1, "checkpoint_interval": 2}
        message = user_message(stopped(moment, kill_worker, RuntimeError, **settings))
        assert "a process that loads data is gone (DataLoader worker (pid" in message
        assert "killed by signal: Killed), most often because memory ran out: lower --num_workers" in message
        assert f"saved in {tmp_path / 'parts' / 'checkpoint.pt'}: 0 epochs and {kept} steps" in message
        assert "\n" not in message
        compare_with_uninterrupted(cohort, tmp_path, pretrain, **settings)

    @pytest.mark.parametrize("moment", [Events.ITERATION_STARTED(once=2), Events.GET_BATCH_STARTED(once=3)])
    def test_signal_to_all_processes(self, cohort, tmp_path, stopped, pretrain, kill_worker, moment):
        """As Slurm sends SIGTERM: the processes that load data are gone, and yet nobody speaks of memory."""

        def end_all():
            os.kill(os.getpid(), signal.SIGTERM)
            kill_worker(number=signal.SIGTERM)

        settings = {"epochs": 1, "epoch_length": 5, "num_workers": 1}
        error = stopped(moment, end_all, KeyboardInterrupt, **settings)
        assert re.search("0 epochs and [23] steps; the same command with --resume True", str(error))
        compare_with_uninterrupted(cohort, tmp_path, pretrain, **settings)

    @pytest.fixture
    def ended(self, monkeypatch):
        """SIGTERMs that would end this process, one of two: such a process listens to its own end."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        before, ended = [signal.getsignal(number) for number in numbers], []
        signal.signal(signal.SIGTERM, lambda number, frame: ended.append(number))
        monkeypatch.setattr(training_state, "get_world_size", lambda: 2)
        yield ended
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)

    def test_told_to_end_while_another_process_is_gone(self, stopped, monkeypatch, ended):
        """torchrun's SIGTERM comes at any moment after the death: what was met is still told."""
        monkeypatch.setattr(training_state, "is_lost_process", lambda error: isinstance(error, ConnectionError))

        def lose(engine):
            raise ConnectionError("Connection closed by peer")

        error = stopped(Events.ITERATION_STARTED(once=2), lose)
        os.kill(os.getpid(), signal.SIGTERM)
        told = "another process of this training is gone, so this one ends; nothing was saved yet"
        assert user_message(error) == told
        assert not ended

    def test_told_to_end_by_torchrun_too(self, stopped, ended):
        """Its SIGTERM may come after this process has noticed the scheduler's: the line is still shown."""
        stopped(Events.ITERATION_STARTED(once=2), lambda: os.kill(os.getpid(), signal.SIGTERM), KeyboardInterrupt)
        os.kill(os.getpid(), signal.SIGTERM)
        assert not ended

    def test_worker_killed_while_a_checkpoint_is_written(
        self, cohort, tmp_path, stopped, pretrain, kill_worker, monkeypatch
    ):
        """The one before stays, and nobody takes the worker for a full disk."""
        save = torch.save

        def kill_and_save(content, file):
            if content.get("step") == 4:
                monkeypatch.setattr(torch, "save", save)
                kill_worker()
            save(content, file)

        monkeypatch.setattr(torch, "save", kill_and_save)
        settings = {"epochs": 1, "epoch_length": 6, "num_workers": 1, "checkpoint_interval": 2}
        message = user_message(stopped(Events.STARTED, lambda: None, RuntimeError, **settings))
        assert "a process that loads data is gone" in message
        assert re.search("0 epochs and [24] steps", message)
        assert not list((tmp_path / "parts").glob("*.part"))
        compare_with_uninterrupted(cohort, tmp_path, pretrain, **settings)


class TestFiles:
    def test_last_ones_are_kept(self, cohort, tmp_path, pretrain):
        pretrain(cohort, tmp_path, epochs=4, epoch_length=1, keep_checkpoints=2)
        assert sorted(p.name for p in tmp_path.glob("checkpoint*")) == [
            "checkpoint.pt", "checkpoint_0003.pt", "checkpoint_0004.pt",
        ]  # fmt: skip
        assert load_file(tmp_path / "checkpoint_0003.pt")["epoch"] == 3

    def test_where_the_best_weights_are_is_told(self, cohort, tmp_path, pretrain, capsys):
        pretrain(cohort, tmp_path, epochs=1, epoch_length=1)
        told = f"best weights, of epoch 1 with ncc_after [0-9.]+: use them with --model {tmp_path / 'model.pt'}"
        assert re.search(told, capsys.readouterr().out)

    def test_a_training_that_is_never_validated_leaves_weights(self, cohort, tmp_path, pretrain, capsys):
        pretrain(cohort, tmp_path, epochs=1, epoch_length=1, val_interval=2)
        assert same(load_file(tmp_path / "model.pt"), load_file(tmp_path / "checkpoint.pt")["network"])
        assert f"none was validated, see --val_interval): use them with --model {tmp_path}" in capsys.readouterr().out

    def test_they_are_counted_not_spelt(self, tmp_path):
        """After 9999 come five digits, which as text stand before it."""
        path = tmp_path / "checkpoint.pt"
        (tmp_path / "checkpoint_mine.pt").write_bytes(b"of the user")
        for number in (9998, 9999, 10000, 10001):
            path.write_bytes(b"%d" % number)
            keep_copy(path, number, 2)
        assert [copy.name for copy in kept_copies(path)] == ["checkpoint_10000.pt", "checkpoint_10001.pt"]
        assert (tmp_path / "checkpoint_mine.pt").exists()

    def test_one_without_links(self, cohort, tmp_path, pretrain, monkeypatch):
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("no links here")))
        pretrain(cohort, tmp_path, epochs=2, epoch_length=1)
        assert same(load_file(tmp_path / "checkpoint.pt"), load_file(tmp_path / "checkpoint_0002.pt"))

    def test_a_damaged_one_names_the_one_before(self, cohort, tmp_path, pretrain, refusal):
        rows = pretrain(cohort, tmp_path, epochs=2, epoch_length=1)
        (tmp_path / "checkpoint.pt").unlink()  # the name, not what checkpoint_0002.pt shares with it
        (tmp_path / "checkpoint.pt").write_bytes(b"damaged")
        message = refusal(cohort, tmp_path, epochs=2, epoch_length=1, resume=True)
        assert f"copy {tmp_path / 'checkpoint_0002.pt'} over it" in message
        (tmp_path / "checkpoint.pt").write_bytes((tmp_path / "checkpoint_0001.pt").read_bytes())
        assert pretrain(cohort, tmp_path, epochs=2, epoch_length=1, resume=True) == rows

    @pytest.mark.parametrize("content", [{"network": {}}, [1, 2], {}])
    def test_something_else(self, cohort, tmp_path, refusal, content):
        save_atomically(content, tmp_path / "checkpoint.pt")
        assert "is not a checkpoint of this training" in refusal(cohort, tmp_path, resume=True)

    def test_another_length_of_the_epoch_begins_it_anew(self, cohort, tmp_path, stopped, pretrain):
        stopped(Events.ITERATION_STARTED(once=2), lambda: os.kill(os.getpid(), signal.SIGTERM), epochs=1)
        assert load_file(tmp_path / "parts" / "checkpoint.pt")["step"] == 2
        pretrain(cohort, tmp_path / "parts", resume=True, epochs=1, epoch_length=2)
        state = load_file(tmp_path / "parts" / "checkpoint.pt")
        assert (state["epoch"], state["step"]) == (1, 0)
        assert {int(entry["step"]) for entry in state["optimizer"]["state"].values()} == {4}

    def test_moments_of_another_memory_layout(self, cohort, tmp_path, stopped, pretrain):
        """As a run with another ``memory_format`` leaves them."""
        stopped(Events.ITERATION_STARTED(once=5), lambda: os.kill(os.getpid(), signal.SIGTERM), epochs=2)
        state = load_file(tmp_path / "parts" / "checkpoint.pt")
        for values in state["optimizer"]["state"].values():
            values.update({name: values[name].contiguous() for name in ("exp_avg", "exp_avg_sq")})
        save_atomically(state, tmp_path / "parts" / "checkpoint.pt")
        compare_with_uninterrupted(cohort, tmp_path, pretrain, epochs=2)


def test_a_full_disk_is_named(tmp_path):
    """The error of a checkpoint says what is kept."""
    with pytest.raises(InputError, match="nothing was written"):
        save_atomically({}, tmp_path / "none" / "checkpoint.pt")
