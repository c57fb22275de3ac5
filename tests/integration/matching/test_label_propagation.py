# SPDX-License-Identifier: Apache-2.0

"""Labels carried from atlases to a folder of scans, at once and in rounds."""

from __future__ import annotations

import csv
import json

import nibabel as nib
import numpy as np
import pytest
from matching_runs import HEART, run


@pytest.mark.parametrize("vote", ["majority", "similarity"])
def test_labels_for_a_folder(phantoms, model, tmp_path, monkeypatch, vote):
    atlas, label = ([f"{phantoms}/{part}/phantom_00{i}.nii.gz" for i in (0, 1)] for part in ("imagesTr", "labelsTr"))
    overrides = {"dataset_dir": str(phantoms), "atlas": atlas, "atlas_label": label, "vote": vote}
    assert run(["inference", "propagate"], model, tmp_path, monkeypatch, **overrides) == []
    names = [f"phantom_00{i}.nii.gz" for i in (2, 3, 4)]
    tables = ["propagation.csv", "results.csv", "scans.csv"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["confidence", *names, *tables]
    assert sorted(path.name for path in (tmp_path / "confidence").iterdir()) == names
    for path in tmp_path.glob("*.nii.gz"):
        written, scan = nib.load(path), nib.load(phantoms / "imagesTr" / path.name)
        assert written.shape == scan.shape
        assert np.allclose(written.affine, scan.affine, atol=1e-4)
        assert len(set(np.unique(written.dataobj)) & set(HEART)) >= 5


def test_labels_are_carried_in_rounds(phantoms, model, tmp_path, monkeypatch):
    """What make carry runs: one atlas, then one of its results corrected, which becomes an atlas of the others."""
    atlas, label = (str(phantoms / part / "phantom_000.nii.gz") for part in ("imagesTr", "labelsTr"))
    overrides = {"dataset_dir": str(phantoms), "atlas": atlas, "atlas_label": label}
    files, out = ["inference", "propagate", "plan", "carry"], tmp_path / "out"
    assert run(files, model, out, monkeypatch, **overrides) == []
    corrected = out / "corrected" / "phantom_002.nii.gz"
    corrected.parent.mkdir()
    corrected.write_bytes((phantoms / "labelsTr" / "phantom_002.nii.gz").read_bytes())
    run(files, model, out, monkeypatch, **overrides)
    with (out / "propagation.csv").open(newline="") as file:
        rows = {row["result"]: (row["atlases"], row["look_at"]) for row in csv.DictReader(file)}
    assert rows.pop("phantom_002") == ("", "corrected")
    assert set(rows) == {"phantom_001", "phantom_003", "phantom_004"}
    assert {atlases for atlases, _ in rows.values()} == {"2"}
    for name in [*rows, "phantom_002"]:
        written, scan = nib.load(out / f"{name}.nii.gz"), nib.load(phantoms / "imagesTr" / f"{name}.nii.gz")
        assert written.shape == scan.shape
        assert len(set(np.unique(written.dataobj)) & set(HEART)) >= 3
    assert (out / "carried.html").read_text().count("<article>") == 4
    described = json.loads((out / "dataset.json").read_text())  # what make child takes
    assert described["modality"] == {"0": "CT"}  # as the plan found
    assert described["training"][0] == {"image": atlas, "label": label}
    given = {row["label"] for row in described["training"][1:]}
    with (out / "propagation.csv").open(newline="") as file:
        trusted = {f"{row['result']}.nii.gz" for row in csv.DictReader(file) if row["look_at"] != "yes"}
    assert given == trusted >= {"phantom_002.nii.gz"}
