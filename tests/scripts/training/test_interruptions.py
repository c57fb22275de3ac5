# SPDX-License-Identifier: Apache-2.0

"""Signals are noted, not acted on at once; whoever had them before gets them back."""

from __future__ import annotations

import os
import signal

import pytest
from scripts.training import Interruptions
from scripts.training import interruptions as module

NUMBERS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture
def interruptions(monkeypatch):
    monkeypatch.setattr(module, "is_command", lambda: True)
    made = Interruptions()
    made.listen()
    yield made
    made.stop_listening()


@pytest.mark.parametrize("number", NUMBERS)
def test_a_stop_is_noted(interruptions, capsys, number):
    os.kill(os.getpid(), number)
    assert interruptions.stop_asked
    assert "stopping after this step" in capsys.readouterr().err


def test_second_ctrl_c_ends_at_once(interruptions):
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)  # a scheduler's second notice does not
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_signals_are_given_back(monkeypatch):
    before = [signal.getsignal(number) for number in NUMBERS]
    monkeypatch.setattr(module, "is_command", lambda: True)
    made = Interruptions()
    made.listen()
    assert all(signal.getsignal(number) is not old for number, old in zip(NUMBERS, before, strict=True))
    made.stop_listening()
    assert [signal.getsignal(number) for number in NUMBERS] == before


def test_another_program_keeps_its_signals():
    """A notebook, a federated client, a server."""
    before = [signal.getsignal(number) for number in NUMBERS]
    Interruptions().listen()
    assert [signal.getsignal(number) for number in NUMBERS] == before
