# SPDX-License-Identifier: Apache-2.0
"""Mistakes of the user, reported in one line."""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import re
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import monai
import torch
from packaging.specifiers import SpecifierSet

NO_PLACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
OPTIONAL = {"dynamic_network_architectures": "ResidualEncoderUNet", "einops": "SwinUNETR"}
"""Packages that only one network needs, and which."""


class InputError(ValueError):
    """What was given cannot be used: the message names the culprit and the remedy, in one line per culprit."""


def is_lost_worker(error: BaseException) -> bool:
    """Whether an error of PyTorch's says that a process which loads data has been killed."""
    return isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker (pid")


def user_message(error: BaseException | None) -> str | None:
    """
    The line to show for an error that the user can mend, or None for a programming error.

    MONAI wraps whatever a component raises in a ``RuntimeError``, so the chain of causes is searched.

    Args:
        error: an exception, with its ``__cause__`` and ``__context__``.

    Returns:
        the message of the first :class:`InputError` of the chain; a line about a disk that takes no more, a process
        that loads data and was killed, a package that only some networks need and that is not there, or an option that
        a component does not have; None otherwise.
    """
    component = ""
    while error is not None:
        if isinstance(error, InputError):
            return str(error).split("InputError: ")[-1].strip()  # a loader's worker puts its traceback before it
        if isinstance(error, OSError) and error.errno in NO_PLACE:
            path = os.fsdecode(error.filename or "a file")
            return (
                f"{path} cannot be written ({error.strerror}): make room, or allow writing; what was saved stays, and "
                "a training goes on with --resume True"
            )
        if (
            isinstance(error, FileNotFoundError)
            and error.filename
            and not os.path.isdir(os.path.dirname(error.filename))
        ):
            return f"the folder of {error.filename} is not there any more: bring it back and pass --resume True"
        if is_lost_worker(error):
            how = str(error).split(". ")[0].strip(". ")
            return (
                f"a process that loads data is gone ({how}), most often because memory ran out: lower --num_workers or "
                "--cache_rate, or (pre-training) keep prepared scans on disk with --cache_dir"
            )
        missing = re.search(r"(?:No module named|function path:) '(\w+)", str(error))
        if isinstance(error, ImportError) and missing and missing.group(1) in OPTIONAL:
            return f"this network needs the package {missing.group(1)}: python -m pip install {missing.group(1)}"
        wrapped = re.match(r"Failed to instantiate component '([^']+)'", str(error))
        component = wrapped.group(1) if wrapped else component
        option = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if component and isinstance(error, TypeError) and option:
            return (
                f"{component} has no option '{option.group(1)}': correct the name in the config or on the command line"
            )
        error = error.__cause__ or error.__context__
    return None


def check_numbers(values: Mapping[str, Any], lowest: float = 0, whole: bool = False, count: int | None = None) -> None:
    """
    Refuse settings that are not the numbers they should be.

    Args:
        values: settings by id; by a description, with a space in it, where the id depends on the configuration.
        lowest: smallest number allowed.
        whole: whole numbers only.
        count: None for a single number; else a list of so many, 0 for a list of any length.

    Raises:
        InputError: naming the first setting that does not fit.
    """
    kind = "whole number" if whole else "number"
    wanted = f"a {kind}" if count is None else f"a list of {kind}s" if count == 0 else f"{count} {kind}s"
    for name, value in values.items():
        numbers = [value] if count is None else value
        fits = isinstance(numbers, list | tuple) and (not count or len(numbers) == count)
        for number in numbers if fits else ():
            right_kind = isinstance(number, int if whole else int | float) and not isinstance(number, bool)
            fits = fits and right_kind and lowest <= number < math.inf
        if not fits:
            bound = "" if lowest == -math.inf else f" of {lowest:g} or more"
            remedy = "change it in the configuration" if " " in name else f"pass --{name} accordingly"
            raise InputError(f"{name} must be {wanted}{bound}, not {value!r}: {remedy}")


def check_flags(flags: Mapping[str, Any]) -> None:
    """
    Refuse switches that are no booleans: on the command line ``false`` is a word, and any word would switch on.

    Args:
        flags: settings by id.

    Raises:
        InputError: naming the first one that is not True or False.
    """
    for name, value in flags.items():
        if not isinstance(value, bool):
            meant = str(value).capitalize()
            advice = f"--{name} {meant}" if meant in ("True", "False") else f"--{name} True or --{name} False"
            raise InputError(f"{name} must be True or False, not {value!r}: write {advice}")


def check_orientation(orientation: str) -> None:
    """
    Refuse axis codes that name no orientation.

    Args:
        orientation: a letter for each axis: R or L, A or P, S or I, each pair once, as "RAS".

    Raises:
        InputError: for anything else.
    """
    pairs = [next((pair for pair in ("RL", "AP", "SI") if letter in pair), None) for letter in str(orientation)]
    if len(pairs) != 3 or set(pairs) != {"RL", "AP", "SI"}:
        raise InputError(f"orientation must have one letter each of R/L, A/P and S/I, as in RAS, not {orientation!r}")


def refuse_or_leave_out(problems: Sequence[str], total: int, what: str, skip_bad: bool | None) -> None:
    """
    List what cannot be used: as an error, or with ``skip_bad`` on the screen.

    Args:
        problems: a line for each unusable item.
        total: how many items there are.
        what: they are, in the plural.
        skip_bad: go on without the unusable ones, as long as one remains; None where there is no such setting.

    Raises:
        InputError: listing them.
    """
    if not problems:
        return
    if not skip_bad or len(problems) == total:
        advice = "" if skip_bad is None or len(problems) == total else " (--skip_bad True leaves them out)"
        raise InputError("\n  ".join([f"{len(problems)} of {total} {what} cannot be used{advice}:", *problems]))
    print("\n  ".join([f"left out {len(problems)} of {total} {what}:", *problems]), flush=True)


def is_command() -> bool:
    """Whether ``python -m monai.bundle`` is this process' program, and not a notebook, a server or another one."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec is not None and spec.name.split(".")[:2] == ["monai", "bundle"]


def report_input_errors() -> None:
    """
    First step of every configuration: where the command runs it, mistakes end in one line, see :func:`show_one_line`,
    and logs are quiet unless ``--logging_file`` asks for them: ignite would tell of the error too, and of each epoch. A
    notebook, a federated client or the server of MONAI Label keeps its hooks and logs.
    """
    if not is_command():
        return
    show_one_line()
    if not any(argument.startswith("--logging_file") for argument in sys.argv):
        logging.getLogger().setLevel(logging.WARNING)
        logging.getLogger("ignite").setLevel(logging.CRITICAL)


def show_one_line() -> None:
    """
    Make an uncaught :class:`InputError` end the program with its message alone; other errors keep their traceback.
    """

    shown: set[str] = set()

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            kept = str(error) or "what was saved stays; a training goes on with --resume True"
            print(f"\n{process}interrupted: {kept}", file=sys.stderr)
            return
        message = user_message(error)
        if message is None:
            sys.__excepthook__(kind, error, trace)
        elif message not in shown:  # a thread that writes logs may have met the same full disk
            shown.add(message)
            print(f"{process}error: {message}", file=sys.stderr)

    def thread_hook(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None:
            hook(args.exc_type, args.exc_value, args.exc_traceback)

    process = f"process {os.environ['RANK']}: " if os.environ.get("WORLD_SIZE", "1") != "1" else ""
    sys.excepthook, threading.excepthook = hook, thread_hook


def check_versions(bundle_root: str) -> None:
    """
    Refuse to run with packages that this bundle does not support, before anything else goes wrong because of them.

    Args:
        bundle_root: the bundle's folder, with ``configs/metadata.json``.

    Raises:
        InputError: when the bundle's metadata cannot be read, or see :func:`refuse_unsupported`.
    """
    path = Path(bundle_root) / "configs" / "metadata.json"
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}): take it from the release again") from error
    refuse_unsupported(metadata, path)


def refuse_unsupported(metadata: Mapping[str, Any], source: str | Path) -> None:
    """
    Compare the packages in use with the ranges of a bundle's metadata.

    Args:
        metadata: of a bundle; ``supported_versions`` holds a range by package.
        source: where it comes from, for the message.

    Raises:
        InputError: naming the package, the version in use and the range.
    """
    installed = {"monai": monai.__version__, "torch": torch.__version__}
    for package, supported in metadata.get("supported_versions", {}).items():
        version = installed.get(package, "0+unknown")
        if version.startswith("0+unknown"):  # a checkout without tags
            continue
        if not SpecifierSet(supported).contains(version, prereleases=True):
            raise InputError(
                f"{package} {version} is in use, but {source} supports {supported}: "
                f"pip install '{package}{supported}', or take another release of the bundle"
            )
