# SPDX-License-Identifier: Apache-2.0

"""The command that makes a package of a model zoo, and its refusals."""

from __future__ import annotations

import json
from pathlib import Path

import make_zoo
import pytest

NAME = "blob_mr_segmentation"
METADATA = Path(__file__).parents[1] / "bundle" / "configs" / "metadata.json"
VERSION = json.loads(METADATA.read_text(encoding="utf-8"))["version"]
PACKAGE = f"{NAME}_v{VERSION}"


def made(bundle: Path, out: Path, *options: str) -> Path:
    """The zip that the command makes."""
    assert make_zoo.main([str(bundle), "--out", str(out), *options]) == 0
    return out / f"{PACKAGE}.zip"


def refusal(capsys: pytest.CaptureFixture[str], *arguments: Path | str) -> str:
    """Run the command, which must refuse in one line, and give that line."""
    assert make_zoo.main([str(argument) for argument in arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("make_zoo: error: ")
    assert error.count("\n") == 1
    return error
