# SPDX-License-Identifier: Apache-2.0
"""The configuration of a network, read from the network: what ``settings.json`` of a run holds of its architecture."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Mapping
from typing import Any, TypeVar

from monai.bundle import ConfigParser
from torch import nn

from ..errors import InputError

Class = TypeVar("Class", bound=type[nn.Module])


def recorded(cls: Class) -> Class:
    """Class decorator: instances remember the arguments they were made with, for :func:`describe`."""
    made = cls.__init__
    signature = inspect.signature(made)

    @functools.wraps(made)
    def remember(self: Any, *args: Any, **kwargs: Any) -> None:
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        made(self, *args, **kwargs)
        if type(self) is cls:
            vars(self)["arguments"] = dict(list(bound.arguments.items())[1:])

    cls.__init__ = remember  # type: ignore[method-assign]
    return cls


def describe(network: nn.Module, references: Mapping[str, str] | None = None) -> dict[str, Any] | None:
    """
    The configuration that makes a network, ``_target_`` and arguments of each part, without its weights.

    Args:
        network: of classes that are :func:`recorded`, and so its parts.
        references: ids of the configuration by argument, which are named in place of the value.

    Returns:
        what JSON can hold; None, and a line is printed, where a part's class is not recorded (one of MONAI's, say).
    """
    try:
        return _description(network, references or {})
    except TypeError as error:
        print(f"settings.json leaves the network out ({error}): use its model with the same overlays", flush=True)
        return None


def another(network: nn.Module) -> nn.Module:
    """
    A network made as a given one was, with weights of its own.

    Args:
        network: see :func:`describe`.

    Raises:
        InputError: where a part's class is not recorded.
    """
    try:
        made = _description(network, {})
    except TypeError as error:
        raise InputError(
            f"a second {type(network).__name__} cannot be made ({error}): give its network as segresnet.json does"
        ) from error
    return ConfigParser({"network": made}).get_parsed_content("network")


def _description(network: nn.Module, references: Mapping[str, str]) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        if isinstance(value, list | tuple | nn.ModuleList):
            return [plain(item) for item in value]
        if isinstance(value, Mapping):
            return {name: plain(item) for name, item in value.items()}
        if isinstance(value, nn.Module):
            return _description(value, references)
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise TypeError(f"{kind.__name__} was given a {type(value).__name__}")

    kind = type(network)
    if not hasattr(network, "arguments"):
        raise TypeError(f"{kind.__name__} does not know its arguments")
    package = kind.__module__.rpartition(".")[0]
    exported = getattr(sys.modules.get(package), kind.__name__, None) is kind
    made = {"_target_": f"{package if exported else kind.__module__}.{kind.__name__}"}
    for name, value in dict(network.arguments).items():  # type: ignore[arg-type]
        part = getattr(network, name, None)  # may have been replaced since
        value = part if isinstance(part, nn.Module) else value
        made[name] = f"@{references[name]}" if name in references else plain(value)
    return made
