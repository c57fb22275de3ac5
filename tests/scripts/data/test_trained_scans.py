# SPDX-License-Identifier: Apache-2.0

"""Scans that a model was trained on are known again, named and left out."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from scripts.data import fingerprint, fingerprints, seen_scans, unseen_scans
from scripts.errors import InputError
from scripts.training import write_settings


@pytest.fixture
def scans(tmp_path):
    """Six files of five subjects: the last two are of one."""
    found = []
    for number in range(6):
        path = tmp_path / "data" / f"{number}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes([number]) * (200000 + number))
        found.append({"image": str(path), "subject": str(min(number, 4))})
    return found


@pytest.fixture
def model(tmp_path, scans):
    """A model that was trained on the first and the last scan."""
    write_settings(str(tmp_path / "run"), {"features": [4]}, fingerprints([scans[0], scans[5]]))
    return str(tmp_path / "run" / "model.pt")


@pytest.fixture(autouse=True)
def run_folder(tmp_path):
    (tmp_path / "run").mkdir()


def test_a_moved_file_is_known_again(tmp_path, scans, model):
    moved = tmp_path / "elsewhere.nii.gz"
    moved.write_bytes((tmp_path / "data" / "0.nii.gz").read_bytes())
    assert [scan["image"] for scan in seen_scans([{"image": str(moved), "subject": "x"}, scans[1]], model)] == [
        str(moved)
    ]
    changed = bytearray(moved.read_bytes())
    changed[-1] ^= 1
    moved.write_bytes(changed)
    assert seen_scans([{"image": str(moved), "subject": "x"}, scans[1]], model) == []


def test_weights_named_without_their_folder(tmp_path, scans, model, monkeypatch):
    """Whether settings.json lies beside them or not."""
    monkeypatch.chdir(tmp_path / "run")
    assert seen_scans(scans, "model.pt") == seen_scans(scans, model) != []
    (tmp_path / "run" / "settings.json").unlink()
    assert seen_scans(scans, "model.pt") == []
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "trained_on.csv").write_text(f"set,scan,fingerprint\nA,b,{fingerprint(scans[1]['image'])}\n")
    (tmp_path / "run" / "inner").mkdir()
    for spelt in ("model.pt", "./model.pt", "inner/../model.pt"):
        assert seen_scans(scans, spelt) == [scans[1]]


def test_whole_subjects_are_named_and_left_out(scans, model, capsys):
    seen = seen_scans(scans, model)
    assert seen == [scans[0], scans[4], scans[5]]
    assert unseen_scans(scans, seen) == scans[1:4]
    said = capsys.readouterr().out
    assert "trained on 3 of the 6 scans" in said
    assert all(scan["image"] in said for scan in seen)


def test_they_may_stay_which_is_said(scans, model, capsys):
    assert unseen_scans(scans, seen_scans(scans, model), held_back=False) == scans
    assert "trained on 3 of the 6 scans: they are measured with the others" in capsys.readouterr().out


def test_too_few_left_are_refused(scans, model):
    with pytest.raises(InputError, match=r"too few are left .* --held_back False"):
        unseen_scans(scans[4:], seen_scans(scans[4:], model))


def test_unknown_is_said(tmp_path, scans, capsys):
    """Weights of another program, and no weights at all."""
    assert seen_scans(scans, str(tmp_path / "foreign" / "model.pt")) == []
    assert "says which scans it was trained on: all are measured" in capsys.readouterr().out
    assert seen_scans(scans, None) == []
    assert capsys.readouterr().out == ""


def test_settings_that_are_damaged_are_named(scans, model, tmp_path):
    (tmp_path / "run" / "settings.json").write_text("[")
    with pytest.raises(InputError, match=r"settings\.json"):
        seen_scans(scans, model)


def test_what_the_starting_weights_saw_counts(scans, model):
    assert set(fingerprints([scans[1]], model)) == {fingerprint(scans[n]["image"]) for n in (0, 1, 5)}


def test_a_run_that_goes_on_keeps_what_it_saw(tmp_path, scans, model):
    """Added scans are no other setting: the run goes on, and both are in the list."""
    (tmp_path / "run" / "checkpoint.pt").touch()
    write_settings(str(tmp_path / "run"), {"features": [4]}, fingerprints([scans[1]]))
    kept = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert set(kept["trained_on"]) == {fingerprint(scans[n]["image"]) for n in (0, 1, 5)}
    assert kept["features"] == [4]


def test_a_series_is_one_scan(tmp_path, monkeypatch):
    """Its first file and the number of files tell it."""
    files = [tmp_path / name for name in ("a.dcm", "b.dcm", "c.dcm")]
    for path in files:
        path.write_bytes(path.name.encode() * 300)
    found = SimpleNamespace(slices=[SimpleNamespace(path=str(path)) for path in files])
    monkeypatch.setattr("scripts.data.trained_scans.find_series", lambda path: found)
    whole = fingerprint(str(tmp_path))
    assert fingerprint(str(tmp_path / "by its name")) == whole
    found.slices = found.slices[:2]
    assert fingerprint(str(tmp_path)) != whole
