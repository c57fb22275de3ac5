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
"""Which of the parent's modules a bundle needs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[2] / "bundle" / "scripts"


def needed_modules(configurations: Iterable[str]) -> list[str]:
    """
    The modules of ``scripts`` that configurations name, and those that these import.

    Args:
        configurations: texts of JSON files.

    Returns:
        their names in alphabetical order, ``__init__`` among them.
    """
    found: set[str] = set()
    waiting = {"__init__"} | {name for text in configurations for name in re.findall(r"\bscripts\.(\w+)\.", text)}
    while waiting:
        name = waiting.pop()
        found.add(name)
        text = (SCRIPTS / f"{name}.py").read_text(encoding="utf-8")
        waiting |= set(re.findall(r"^from \.(\w+) import", text, re.MULTILINE)) - found
    return sorted(found)
