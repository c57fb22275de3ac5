# SPDX-License-Identifier: Apache-2.0

"""The versions that a bundle supports."""

from __future__ import annotations

import json
from pathlib import Path

import monai
import pytest
import torch
from scripts.errors import InputError, check_versions, refuse_unsupported

RANGES = {"supported_versions": {"monai": ">=1.6.1,<1.7", "torch": ">=2.8"}}


@pytest.mark.parametrize(
    ("monai_version", "torch_version"),
    [("1.6.1", "2.13.0+cpu"), ("1.6.9", "2.8.0"), ("1.6.2rc1", "3.0.0a0+git123"), ("0+unknown", "2.9.1+cu128")],
)
def test_newer_patches_and_local_builds_may_run(
    monai_version: str, torch_version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monai, "__version__", monai_version)
    monkeypatch.setattr(torch, "__version__", torch_version)
    refuse_unsupported(RANGES, "metadata.json")


@pytest.mark.parametrize(
    ("package", "version", "message"),
    [
        (monai, "1.5.0", "monai 1.5.0 is in use, but metadata.json supports >=1.6.1,<1.7: pip install 'monai>=1.6.1"),
        (monai, "1.6.0", "monai 1.6.0 is in use"),
        (monai, "1.7.0", "monai 1.7.0 is in use"),
        (
            torch,
            "2.7.1+cu126",
            "torch 2.7.1+cu126 is in use, but metadata.json supports >=2.8: pip install 'torch>=2.8'",
        ),
    ],
)
def test_others_are_refused(package: object, version: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "__version__", version)
    with pytest.raises(InputError) as caught:
        refuse_unsupported(RANGES, "metadata.json")
    assert message in str(caught.value)


def test_ranges_are_read_from_the_bundle(tmp_path: Path) -> None:
    check_versions(str(Path(__file__).parents[2] / "bundle"))
    path = tmp_path / "configs" / "metadata.json"
    path.parent.mkdir()
    with pytest.raises(InputError, match="cannot be read"):
        check_versions(str(tmp_path))
    path.write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        check_versions(str(tmp_path))
    path.write_text(json.dumps({"supported_versions": {"torch": "<1"}}))
    with pytest.raises(InputError, match="pip install 'torch<1'"):
        check_versions(str(tmp_path))
    path.write_text("{}")
    check_versions(str(tmp_path))
