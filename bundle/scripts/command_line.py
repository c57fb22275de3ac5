# SPDX-License-Identifier: Apache-2.0
"""The command line of ``monai.bundle run``: options that no setting has are refused, paths are taken as written."""

from __future__ import annotations

import ast
import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser, run
from monai.bundle.utils import DEFAULT_EXP_MGMT_SETTINGS

from .errors import InputError

ONE_PATH = (
    *("bundle_root", "output_dir", "ckpt_dir", "cache_dir", "data_dir", "source_dir"),
    *("model", "pretrained", "fixed", "fixed_points"),
)
"""Settings that are one path."""
PATHS = ("dataset_dir", "pairs", "moving", "moving_label", "points", "atlas", "atlas_label", "image")
"""Settings that are one path or a list of them."""
FOLDERS = ("bundle_root", "output_dir", "ckpt_dir")
"""Those of them that must be there."""
TEXTS = ("subject_key", "merged_labels", "kind", "run_name", "experiment_name")
"""Settings that are a text, or a list of them."""
OF_MONAI = tuple(inspect.signature(run).parameters)
"""Options of the command itself."""


def given_options(arguments: Sequence[str]) -> tuple[dict[str, str | None], list[str]]:
    """
    What was typed, before Python Fire makes numbers, lists and dates of it.

    Args:
        arguments: of the command, after its name.

    Returns:
        text by option, None for an option without a value; and the words that belong to no option.
    """

    def is_option(word: str) -> bool:
        return word.startswith("--") or re.match("-[a-zA-Z]", word) is not None

    options: dict[str, str | None] = {}
    words: list[str] = []
    waiting = ""
    for word in arguments:
        if word == "--":
            break
        if is_option(word):
            key, equals, value = word.lstrip("-").partition("=")
            waiting = "" if equals else key.replace("-", "_")
            options[key.replace("-", "_")] = value if equals else None
        elif waiting:
            options[waiting] = word
            waiting = ""
        else:
            words.append(word)
    return options, words


def as_fire_reads(text: str) -> Any:
    """The value that Python Fire makes of a text, which only the command ``monai.bundle`` needs."""
    from fire.parser import DefaultParseValue

    return DefaultParseValue(text)


def as_meant(text: str, several: bool = False) -> Any:
    """
    The path or text that was typed. Python Fire takes ``2024_06_01`` and ``1e5`` for numbers, ``a,b`` for a list and
    leaves out what follows a ``#``.

    Args:
        text: as typed.
        several: whether a list such as ``[a,b]`` is possible.

    Returns:
        the text, or a list of texts; None for ``None``. What exists under this name is never taken for anything else.
    """
    if os.path.lexists(text) or text[:1] in "$@%":
        return text
    if text.startswith("~"):  # a shell leaves it as it is behind "="
        return os.path.expanduser(text)
    value = as_fire_reads(text)
    if value is None or (isinstance(value, str) and text[:1] in "'\""):
        return value
    if several and isinstance(value, list | tuple):
        nodes = ast.parse(text, mode="eval").body.elts  # type: ignore[attr-defined]
        both = zip(value, nodes, strict=True)
        return [v if isinstance(v, str | dict | None) else ast.get_source_segment(text, node) for v, node in both]
    return text


def nearest(option: str, config: Mapping[str, Any]) -> str | None:
    """
    What is wrong with the id of a setting.

    Args:
        option: id as in the configuration, ``a`` or ``a#b#c``.
        config: the configuration as merged from its files.

    Returns:
        None for a setting that there is, or an argument of a component, which may be any; else what there is.
    """
    node: Any = config
    parts = re.split("#|::", option.lstrip("+~"))
    for depth, part in enumerate(parts):
        if isinstance(node, list) and part.lstrip("-").isdigit() and int(part) < len(node):
            node = node[int(part)]
            continue
        if not isinstance(node, Mapping | list) or (depth and "_target_" in node):
            return None
        if not isinstance(node, Mapping) or part not in node:
            before = "#".join([*parts[:depth], ""])
            names = [str(name) for name in (node if isinstance(node, Mapping) else range(len(node)))]
            known = [*names, *OF_MONAI] if not depth else names
            found = get_close_matches(part, known, n=1, cutoff=0.6) or get_close_matches(part.lower(), known, n=1)
            return f"did you mean --{before}{found[0]}?" if found else "its settings stand at the top of that file"
        node = node[part]
    return None


def _words_of_tracking(tracking: str | None) -> Mapping[str, Any]:
    """Settings that the option ``--tracking`` brings along."""
    if tracking is None:
        return {}
    with suppress(Exception):  # MONAI says what is wrong with a file of settings
        settings: Any = DEFAULT_EXP_MGMT_SETTINGS.get(tracking) or ConfigParser.load_config_files(tracking)
        return settings["configs"]
    return {}


def check_command_line(resolved: Callable[[], dict[str, Any]], arguments: Sequence[str] | None = None) -> None:
    """
    Refuse options that no setting has, which MONAI takes in silence, and None, which it leaves out in silence; give
    every setting that is a path the text that was typed. Does nothing where another program than ``monai.bundle run``
    uses the bundle.

    Args:
        resolved: gives what the configuration's ids have been resolved to so far, ``$lambda: __local_refs`` in a
            configuration: paths are put there before any other component asks for them. The dictionary itself, which
            then holds itself, would let MONAI search for ever where it resolves everything (MONAI Label).
        arguments: of the command; those of the process by default.

    Raises:
        InputError: naming the option and the nearest one there is; for a path without a value.
    """
    if arguments is None:
        program = Path(sys.argv[0]).parts[-3:]
        if program != ("monai", "bundle", "__main__.py") or sys.argv[1:2] != ["run"]:
            return
        arguments = sys.argv[2:]
    options, words = given_options(arguments)
    files = [options.get("config_file")]
    if options.get("args_file"):
        defaults = ConfigParser.load_config_file(str(options["args_file"]))
        files.append(defaults.get("config_file"))
        options = {**{key: None for key in defaults}, **options}
        paths_given = {key for key in options if key not in defaults or options[key] is not None}
    else:
        paths_given = set(options)
    file = next((as_fire_reads(name) if isinstance(name, str) else name for name in files if name), None)
    if file is None:
        return
    config = ConfigParser.load_config_files(file)
    known = {**config, **dict.fromkeys(OF_MONAI), **_words_of_tracking(options.get("tracking")), "_meta_": {}}
    shown, values = Path(file if isinstance(file, str) else file[0]).name, ConfigParser(known)
    for word in words[1:] if words[:1] and words[0] in config else words:
        raise InputError(
            f"'{word}' belongs to no option: write several values as a list in quotes, such as "
            '--moving "[a.nii.gz,b.nii.gz]", and a pattern in quotes too'
        )
    for option in options:
        if option.startswith("_meta_"):
            continue
        advice = nearest(option, known)
        if advice:
            for word in arguments:
                if re.match("-[^-]", word) and option in given_options([word])[0]:
                    advice = f"a path that begins with '-' is written ./{word}"
            raise InputError(f"--{option} is no setting of {shown}: {advice}")
        as_typed = option in (*OF_MONAI, *ONE_PATH, *PATHS, *TEXTS)
        if options[option] == "None" and not as_typed and values.get(option.lstrip("+~"), "absent") is not None:
            raise InputError(
                f'--{option} None: MONAI keeps what {shown} has then; write {{"{option}": null}} into a JSON file and '
                "give that too, as --config_file \"['...','null.json']\""
            )
    for option in sorted(paths_given & {*ONE_PATH, *PATHS, *TEXTS}):
        text = options[option]
        if text is None:
            raise InputError(f"--{option} has no value: write it behind the option")
        meant = as_meant(text, several=option in (*PATHS, *TEXTS))
        if meant is None and option in FOLDERS:
            raise InputError(f"--{option} {text} names no folder: write ./{text} for one of that name")
        resolved()[option] = meant
