# SPDX-License-Identifier: Apache-2.0
"""What the tools' command lines share."""

from __future__ import annotations

import json

import pytest
from make_child import main as make_child
from make_zoo import main as make_zoo


@pytest.mark.parametrize("tool", ["make_child", "make_zoo"])
def test_a_folder_that_cannot_be_made_is_named(tool, make_cohort, repository, tmp_path, capsys):
    (tmp_path / "file").touch()
    out = ["--out", str(tmp_path / "file" / "folder")]
    if tool == "make_child":
        description = make_cohort(tmp_path / "scans", 5) / "dataset.json"
        labels = {"modality": {"0": "MRI"}, "labels": {"0": "background", "1": "blob"}}
        description.write_text(json.dumps({**json.loads(description.read_text()), **labels}))
        code = make_child([str(description.parent), "heart_mr_segmentation", *out])
    else:
        code = make_zoo([str(repository / "downstream" / "hippocampus_mr_segmentation"), *out])
    assert code == 1
    said = capsys.readouterr().err
    assert said.startswith(f"{tool}: error: {tmp_path / 'file' / 'folder'}")
    assert said.endswith("cannot be made (Not a directory): give another --out\n")
