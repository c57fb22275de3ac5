# SPDX-License-Identifier: Apache-2.0
"""What the system tells a training at any moment, put off until the step at hand has ended."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from ignite.distributed import get_rank, get_world_size


class Interruptions:
    """
    Notes Ctrl-C, SIGTERM (a scheduler's notice) and the death of a process that loads data; the training looks between
    two steps whether there is one.

    Attributes:
        stop_asked: somebody wishes the training to stop.
        lost_worker: how a loader's worker has died; None while all live.
    """

    def __init__(self) -> None:
        self.stop_asked = False
        self.lost_worker: RuntimeError | None = None
        self.before: dict[int, Any] = {}

    def _handle(self, number: int, handler: Callable[[int, Any], None]) -> None:
        if threading.current_thread() is threading.main_thread():  # Python allows no other
            self.before[number] = signal.signal(number, handler)

    def listen(self) -> None:
        """Take Ctrl-C and SIGTERM for the wish to stop after this step; a second Ctrl-C ends at once."""
        owner = os.getpid()

        def asked(number: int, frame: Any) -> None:
            if os.getpid() != owner:  # a worker that inherited this: Ctrl-C is the main process' affair
                if number == signal.SIGTERM:
                    os._exit(0)
                return
            if self.stop_asked and number == signal.SIGINT and get_world_size() == 1:
                raise KeyboardInterrupt
            if not self.stop_asked and get_rank() == 0:
                print("\nstopping after this step (Ctrl-C again: at once)", file=sys.stderr, flush=True)
            self.stop_asked = True

        self.lost_worker = None
        for number in (signal.SIGINT, signal.SIGTERM):
            self._handle(number, asked)

    def watch_workers(self) -> None:
        """
        Note it when one dies. To be called when the loader has started them: PyTorch tells of a dead one by an error in
        whatever line is running, amid a step or the writing of a checkpoint.
        """
        number = getattr(signal, "SIGCHLD", None)  # Windows has none
        raising = signal.getsignal(number) if number is not None and number not in self.before else None
        if number is None or not callable(raising):
            return

        def died(number: int, frame: Any) -> None:
            try:
                raising(number, frame)
            except RuntimeError as error:
                self.lost_worker = error

        self._handle(number, died)

    def stop_listening(self) -> None:
        """Leave signals to those who had them before."""
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}
