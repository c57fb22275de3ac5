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

"""The versions of MONAI and torch that a bundle works with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import monai
import torch
from packaging.specifiers import SpecifierSet

from .errors import InputError

METADATA = Path(__file__).parents[1] / "configs" / "metadata.json"


def check_versions() -> None:
    """
    Refuse to run with packages that this bundle does not support, before anything else goes wrong because of them.

    Raises:
        InputError: when the bundle's metadata cannot be read, or see :func:`refuse_unsupported`.
    """
    try:
        metadata = json.loads(METADATA.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{METADATA} cannot be read ({error}): take it from the release again") from error
    refuse_unsupported(metadata, METADATA)


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
