# SPDX-License-Identifier: Apache-2.0
"""The table of training scans that is published with weights, and its use."""

from __future__ import annotations

import csv

import pytest
from list_training_scans import main
from scripts.data import fingerprint, seen_scans, trained_on
from scripts.training import write_settings
from warm_start import run_warm


@pytest.fixture
def run(tmp_path):
    """Of three scans two were trained on."""
    folder = tmp_path / "run"
    folder.mkdir()
    scans = []
    for name in "abc":
        path = tmp_path / "heads" / "imagesTr" / f"{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode() * 1000)
        scans.append({"image": str(path), "subject": name})
    (tmp_path / "heads" / "dataset.json").write_text("{}")
    (folder / "scans.csv").write_text("scan,subject\n" + "".join(f"{s['image']},{s['subject']}\n" for s in scans))
    write_settings(str(folder), {"features": [4]}, [fingerprint(scan["image"]) for scan in scans[:2]])
    return folder, scans


def test_the_table_of_a_bundle_says_what_was_trained_on(tmp_path, run, capsys):
    folder, scans = run
    table, model = tmp_path / "bundle" / "docs" / "trained_on.csv", tmp_path / "bundle" / "models" / "model.pt"
    for path in (table, model):
        path.parent.mkdir(parents=True)
    assert main([str(folder), str(table)]) == 0
    assert "2 scans" in capsys.readouterr().out
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [(row["set"], row["scan"]) for row in rows] == [("heads", "a.nii.gz"), ("heads", "b.nii.gz")]
    assert seen_scans(scans, str(model)) == scans[:2]
    (model.parent / "settings.json").write_text('{"trained_on": []}')  # what lies beside the model comes first
    assert trained_on(str(model)) == []


def test_a_folder_that_is_no_run_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([str(tmp_path), str(tmp_path / "out.csv")])
    assert "holds no scans.csv" in capsys.readouterr().err


def test_from_the_command_line(repository, tmp_path):
    """It found no ``scripts`` outside the tests."""
    done = run_warm((repository / "tools" / "list_training_scans.py", "nowhere", "table.csv"), tmp_path)
    assert done.returncode == 2
    assert done.stderr.strip().endswith("give the --output_dir of a pre-training run")
