# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C and a scheduler's SIGTERM, put off until the training step at hand has ended."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any

from ignite.distributed import get_rank, get_world_size

from ..errors import is_command


class Interruptions:
    """
    Notes Ctrl-C and SIGTERM where the command trains; the training looks between two steps whether there was one. A
    notebook, a federated client or a server has signals of its own and keeps them.

    Attributes:
        stop_asked: somebody wishes the training to stop.
    """

    def __init__(self) -> None:
        self.stop_asked = False
        self.before: dict[int, Any] = {}

    def listen(self) -> None:
        """Take Ctrl-C and SIGTERM for the wish to stop after this step; a second Ctrl-C ends at once."""
        if not is_command() or threading.current_thread() is not threading.main_thread():  # Python allows no other
            return
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

        self.before = {number: signal.signal(number, asked) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop_listening(self) -> None:
        """Leave signals to those who had them before."""
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}
