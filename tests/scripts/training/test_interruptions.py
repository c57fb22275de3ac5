# SPDX-License-Identifier: Apache-2.0

"""Signals and dead workers are noted, not acted on at once; whoever had the signals before gets them back."""

from __future__ import annotations

import os
import signal
import time

import pytest
from scripts.training import Interruptions
from torch.utils.data import DataLoader


@pytest.fixture
def interruptions():
    made = Interruptions()
    made.listen()
    yield made
    made.stop_listening()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_is_noted(interruptions, capsys, number):
    os.kill(os.getpid(), number)
    assert interruptions.stop_asked
    assert "stopping after this step" in capsys.readouterr().err


def test_second_ctrl_c_ends_at_once(interruptions):
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)  # a scheduler's second notice does not
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_signals_are_given_back():
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)
    iter(DataLoader([0], num_workers=1))  # PyTorch listens to workers from now on
    before = [signal.getsignal(number) for number in numbers]
    made = Interruptions()
    made.listen()
    made.watch_workers()
    made.watch_workers()
    assert all(signal.getsignal(number) is not old for number, old in zip(numbers, before, strict=True))
    made.stop_listening()
    assert [signal.getsignal(number) for number in numbers] == before


def test_a_dead_worker_is_noted(interruptions):
    """PyTorch raises its error here, amid whatever runs; between two steps it does no harm."""
    batches = iter(DataLoader(range(100), num_workers=1))
    next(batches)
    interruptions.watch_workers()
    os.kill(batches._workers[0].pid, signal.SIGKILL)
    for _ in range(200):
        time.sleep(0.05)
        if interruptions.lost_worker is not None:
            break
    assert "is killed by signal: Killed" in str(interruptions.lost_worker)
