# SPDX-License-Identifier: Apache-2.0
"""Progress bars: redrawn on a terminal, a line a minute in a log file."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TextIO

from ignite.engine import Engine, Events
from tqdm import tqdm

LOG_INTERVAL = 60.0
"""Seconds between two lines of a log file."""


class Lines:
    """
    A stream to which tqdm's redrawn line is written as lines.

    Args:
        stream: where to.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write what is more than white space as a line of its own, at once: others write to the same file."""
        shown = text.strip()
        count = self.stream.write(f"{shown}\n") if shown else 0
        self.stream.flush()
        return count

    def flush(self) -> None:
        """Flush the stream."""
        self.stream.flush()


def bar_options(width: int | None = 100) -> dict[str, Any]:
    """
    Options of tqdm for the stream of errors as it is: a terminal, or a file.

    Args:
        width: of a file's lines; None for as long as they are.
    """
    if sys.stderr.isatty():
        return {"file": sys.stderr, "dynamic_ncols": True}
    return {"file": Lines(sys.stderr), "mininterval": LOG_INTERVAL, "maxinterval": LOG_INTERVAL, "ncols": width}


def progress(items: Iterable[Any], description: str, total: int | None = None, fewest: int = 20) -> Iterable[Any]:
    """
    Args:
        items: to go through.
        description: what is done with them.
        total: how many there are; their length without it.
        fewest: no bar with fewer.

    Returns:
        the same items, behind a bar.
    """
    total = len(items) if total is None else total  # type: ignore[arg-type]
    return tqdm(items, description, total, **bar_options()) if total >= fewest else items


def say(line: str) -> None:
    """Show a line while a bar may be open: above it on a terminal, by itself in a file."""
    with tqdm.external_write_mode():
        print(line, flush=True)


class EngineProgress:
    """
    Handler: a bar over an evaluator's batches. Ignite's own redraws at each of them, a thousand lines of a log file.

    Args:
        description: what is done with a batch.
    """

    def __init__(self, description: str) -> None:
        self.description = description
        self.bar: tqdm | None = None

    def attach(self, engine: Engine) -> None:
        """Register with the evaluator."""
        engine.add_event_handler(Events.STARTED, self.started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.iteration_completed)
        engine.add_event_handler(Events.COMPLETED, self.ended)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self.failed)

    def started(self, engine: Engine) -> None:
        """Open the bar."""
        self.bar = tqdm(desc=self.description, total=engine.state.epoch_length, **bar_options())

    def iteration_completed(self, engine: Engine) -> None:
        """One batch further."""
        if self.bar is not None:
            self.bar.update()

    def ended(self, engine: Engine) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()

    def failed(self, engine: Engine, error: BaseException) -> None:
        """End the bar's line, so that the error gets one of its own."""
        self.ended(engine)
        raise error
