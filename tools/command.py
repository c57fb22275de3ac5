# SPDX-License-Identifier: Apache-2.0

"""What the tools' command lines share; who imports it finds the parent's ``scripts``."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, Protocol

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bundle"))


class Parser(argparse.ArgumentParser):
    """A parser that states a mistake in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


def make_folder(path: Path) -> None:
    """
    Make the folder of ``--out``, if it is missing.

    Raises:
        InputError: where that cannot be.
    """
    from scripts.errors import InputError

    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path} cannot be made ({error.strerror}): give another --out") from error


class Main(Protocol):
    """What a command does with its arguments, those of the process by default."""

    def __call__(self, argv: Sequence[str] | None = None) -> None: ...


class Command(Protocol):
    """The same, with the exit code."""

    def __call__(self, argv: Sequence[str] | None = None) -> int: ...


def command(prog: str) -> Callable[[Main], Command]:
    """
    Decorator of a ``main``: a user's mistake ends it with one line.

    Args:
        prog: its name.

    Returns:
        a function of the arguments, those of the process by default, that returns the exit code: 0, or 1 for a mistake
        (2, by ``SystemExit``, for wrong arguments).
    """

    def decorate(main: Main) -> Command:
        @functools.wraps(main)
        def run(argv: Sequence[str] | None = None) -> int:
            from scripts.errors import InputError, user_message  # here: not every command needs what it loads

            try:
                main(argv)
            except (InputError, ImportError) as error:  # the latter of a package that one network needs
                message = user_message(error)
                if message is None:
                    raise
                print(f"{prog}: error: {message}", file=sys.stderr)
                return 1
            return 0

        return run

    return decorate
