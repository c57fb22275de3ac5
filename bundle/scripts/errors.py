# Copyright (c) GVSL bundle contributors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Mistakes of the user, reported in one line."""

from __future__ import annotations

import re
import sys
from types import TracebackType


class InputError(ValueError):
    """What was given cannot be used: the message names the culprit and the remedy, in one line per culprit."""


def user_message(error: BaseException | None) -> str | None:
    """
    The line to show for an error that the user can mend, or None for a programming error.

    MONAI wraps whatever a component raises in a ``RuntimeError``, so the chain of causes is searched.

    Args:
        error: an exception, with its ``__cause__`` and ``__context__``.

    Returns:
        the message of the first :class:`InputError` of the chain; a line about the option for a component that was
        given an argument it does not have; None otherwise.
    """
    component = ""
    while error is not None:
        if isinstance(error, InputError):
            return str(error)
        wrapped = re.match(r"Failed to instantiate component '([^']+)'", str(error))
        component = wrapped.group(1) if wrapped else component
        option = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if component and isinstance(error, TypeError) and option:
            return (
                f"{component} has no option '{option.group(1)}': correct the name in the config or on the command line"
            )
        error = error.__cause__ or error.__context__
    return None


def report_input_errors() -> None:
    """
    Make an uncaught :class:`InputError` end the program with its message alone; other errors keep their traceback.
    """

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        message = user_message(error)
        if message is None:
            sys.__excepthook__(kind, error, trace)
        else:
            print(f"error: {message}", file=sys.stderr)

    sys.excepthook = hook
