# SPDX-License-Identifier: Apache-2.0

"""A small bundle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import zoo.files
from zoo_packages import NAME


@pytest.fixture
def bundle(tmp_path: Path, repository: Path) -> Path:
    """A folder with everything the zoo asks for, in small."""
    folder = tmp_path / "source" / NAME
    for part in ("configs", "scripts", "docs", "models"):
        (folder / part).mkdir(parents=True)
    shutil.copyfile(repository / "bundle" / "LICENSE", folder / "LICENSE")
    metadata = json.loads((repository / "bundle" / "configs" / "metadata.json").read_text()) | {"name": NAME}
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    for name in ("train", "inference"):
        (folder / "configs" / f"{name}.json").write_text('{"bundle_root": ".", "output_dir": "runs"}')
    (folder / "scripts" / "__init__.py").touch()
    (folder / "docs" / "README.md").write_text("".join(f"## {heading.title()}\n\n" for heading in zoo.files.HEADINGS))
    (folder / "docs" / "data_license.txt").write_text("none")
    torch.save({"weight": torch.arange(1000.0)}, folder / "models" / "model.pt")
    return folder
