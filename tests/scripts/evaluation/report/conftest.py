# SPDX-License-Identifier: Apache-2.0

"""A model with its history."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A file for the weights, with a history beside it."""
    path = tmp_path / "run" / "model.pt"
    path.parent.mkdir()
    path.write_bytes(b"weights")
    path.with_name("history.csv").write_text(
        "epoch,matching,ncc_before,ncc_after\n1,0.5,0.1,0.2\n2,0.4,,\n", encoding="utf-8"
    )
    return path
