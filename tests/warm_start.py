# SPDX-License-Identifier: Apache-2.0

"""
Commands started from an interpreter that has loaded MONAI: most of a command's time is the import of its libraries.

``python tests/warm_start.py`` loads the libraries (nothing of this repository) and reads requests, a line of JSON
each: ``arguments`` (those of ``python``: ``-m`` and a module, or a script, and what follows), ``cwd``, ``environment``,
and ``stdout`` and ``stderr``, the files to write. It runs each in a fork of its own, as ``python`` would, and prints
its exit code.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

LIBRARIES = (
    "monai.bundle",
    "itk",
    "matplotlib.figure",
    "nibabel",
    "pydicom",
    "sklearn.linear_model",
    "torch.utils.tensorboard",
)


def become(request: Mapping[str, Any]) -> None:
    """Run the request in this process, to its end."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["cwd"])
    first, *rest = request["arguments"]
    if first == "-m":
        sys.argv = rest
        sys.path[0] = request["cwd"]
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [first, *rest]
        sys.path[0] = str(Path(request["cwd"], first).parent)
        runpy.run_path(str(Path(request["cwd"], first)), run_name="__main__")


def serve() -> None:
    """Answer requests until there are no more."""
    for line in sys.stdin.buffer:
        child = os.fork()
        if not child:
            return become(json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


class WarmStart:
    """Asks that interpreter, which the first command starts."""

    def __init__(self) -> None:
        self.server: subprocess.Popen[str] | None = None

    def run(
        self,
        arguments: Sequence[Any],
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
        timeout: float = 600,
    ) -> subprocess.CompletedProcess[str]:
        """
        Run a command.

        Args:
            arguments: of ``python``.
            cwd: where, by default here.
            environment: all of it, by default that of this process. What libraries read when they are loaded
                (``OMP_NUM_THREADS``, 1) cannot be set.
            timeout: seconds after which it is ended.

        Returns:
            as :func:`subprocess.run` does, with texts.
        """
        environment = dict(os.environ if environment is None else environment)
        typed = [str(argument) for argument in arguments]
        if not hasattr(os, "fork"):
            command = [sys.executable, *typed]
            options: dict[str, Any] = {"cwd": cwd, "env": environment, "timeout": timeout}
            return subprocess.run(command, capture_output=True, text=True, check=False, **options)
        if self.server is None or self.server.poll() is not None:
            own = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
            self.server = subprocess.Popen(
                [sys.executable, __file__],
                env={**own, "OMP_NUM_THREADS": "1"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        with tempfile.TemporaryDirectory() as folder:
            files = {name: str(Path(folder, name)) for name in ("stdout", "stderr")}
            request = {"arguments": typed, "cwd": str(Path(cwd or ".").resolve()), "environment": environment, **files}
            print(json.dumps(request), file=self.server.stdin, flush=True)
            watch = threading.Timer(timeout, os.killpg, (self.server.pid, signal.SIGKILL))
            watch.start()
            answer = self.server.stdout.readline()
            watch.cancel()
            if not answer:
                raise subprocess.TimeoutExpired(typed, timeout)
            written = {name: Path(path).read_text(encoding="utf-8") for name, path in files.items()}
        return subprocess.CompletedProcess([sys.executable, *typed], int(answer), **written)


run_warm = WarmStart().run

if __name__ == "__main__":
    for library in LIBRARIES:
        with contextlib.suppress(ImportError):  # a package has its own requirements
            importlib.import_module(library)
    gc.freeze()  # else each command's end looks through all that the libraries have made
    serve()
