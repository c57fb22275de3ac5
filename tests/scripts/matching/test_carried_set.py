# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scripts.data import find_scans
from scripts.data.result_names import record_results
from scripts.data.writing import write_nifti
from scripts.matching import describe_carried
from scripts.matching.match_table import put_rows
from scripts.matching.vote_labels import COLUMNS, TABLE


@pytest.fixture
def carried(tmp_path: Path) -> tuple[Path, list[dict[str, str]]]:
    """Results of two scans, of which one cannot be trusted, from one labelled scan."""
    out = tmp_path / "labels"
    out.mkdir()
    volume = np.random.default_rng(0).random((6, 6, 6)).astype(np.float32)
    for name in ("atlas", "good", "bad"):
        write_nifti(volume, np.eye(4), tmp_path / f"{name}.nii.gz")
    codes = np.zeros((6, 6, 6), dtype=np.uint8)
    codes[2:4], codes[4:] = 3, 12
    for path in (tmp_path / "atlas_label.nii.gz", out / "good.nii.gz", out / "bad.nii.gz"):
        write_nifti(codes, np.eye(4), path)
    record_results(str(out), {name: [str(tmp_path / f"{name}.nii.gz")] for name in ("good", "bad")})
    for name, look_at in (("good", "no"), ("bad", "yes")):
        put_rows(out / TABLE, COLUMNS, name, [{"look_at": look_at}])
    atlas = {"moving": str(tmp_path / "atlas.nii.gz"), "label": str(tmp_path / "atlas_label.nii.gz")}
    return out, [{"image": str(tmp_path / f"{name}.nii.gz"), **atlas} for name in ("good", "bad")]


def test_what_was_carried_is_a_labelled_data_set(carried, capsys):
    out, pairs = carried
    describe_carried(str(out), pairs, "CT")
    description = json.loads((out / "dataset.json").read_text())
    assert description["modality"] == {"0": "CT"}
    assert description["labels"] == {"0": "background", "3": "structure 3", "12": "structure 12"}
    found = find_scans(str(out))
    assert [Path(scan["image"]).name for scan in found] == ["atlas.nii.gz", "good.nii.gz"]
    assert [Path(scan["label"]).name for scan in found] == ["atlas_label.nii.gz", "good.nii.gz"]
    assert "2 labelled scans" in (told := capsys.readouterr().out)
    assert "1 doubtful left out" in told


def test_again_after_corrections_and_with_names_that_a_person_gave(carried):
    out, pairs = carried
    describe_carried(str(out), pairs, "MR")
    first = json.loads((out / "dataset.json").read_text())
    first["labels"] = {"background": 0, "putamen": 3}  # as nnU-Net writes them
    (out / "dataset.json").write_text(json.dumps(first))
    put_rows(out / TABLE, COLUMNS, "bad", [{"look_at": "corrected"}])
    describe_carried(str(out), pairs, "MR")
    again = json.loads((out / "dataset.json").read_text())
    assert len(again["training"]) == 3
    assert again["labels"] == {"0": "background", "3": "putamen", "12": "structure 12"}


@pytest.mark.parametrize("other", [{"name": "mine"}, ["mine"]])
def test_a_file_of_something_else_stays(carried, capsys, other):
    out, pairs = carried
    (out / "dataset.json").write_text(json.dumps(other))
    describe_carried(str(out), pairs, "MR")
    assert json.loads((out / "dataset.json").read_text()) == other
    assert "stays" in capsys.readouterr().out


def test_codes_of_an_earlier_run_are_named(carried):
    """They were left out, though the label maps have them."""
    out, pairs = carried
    write_nifti(np.full((6, 6, 6), 7, dtype=np.uint8), np.eye(4), out / "good.nii.gz")
    describe_carried(str(out), pairs, "MR")
    assert set(json.loads((out / "dataset.json").read_text())["labels"]) == {"0", "3", "7", "12"}
