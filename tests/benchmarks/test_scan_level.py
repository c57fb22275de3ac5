# SPDX-License-Identifier: Apache-2.0

"""What pooled features tell of whole scans: the table, and a run on phantoms."""

from __future__ import annotations

import json

import pytest
import scan_level
from scripts.errors import InputError


def test_the_table_says_what_was_found():
    scores = {"weights": {"auroc": 0.8, "f1": 0.7}, "random": {"auroc": 0.6, "f1": 0.5}}
    gain = {"measure": "auroc", "difference": 0.2, "low": -0.1, "high": 0.4}
    groups = {"weights": {"measure": "auroc", "scores": {"f": 0.7, "m": 0.9}, "gap": 0.2}}
    one = {"task": "classification", "patients": 42, "measures": scores, "gain": gain}
    found = scan_level.markdown({"sex": one, "disease": {**one, "groups": groups}})
    assert "| sex | 42 | auroc, f1 | 0.80, 0.70 | 0.60, 0.50 | +0.20 (-0.10 to +0.40) |  |" in found
    assert "| +0.20 (-0.10 to +0.40) | 0.20 (auroc) |" in found
    assert scan_level.markdown({}) == "Not run yet."


def test_a_whole_run_goes_on_where_it_was_cut_off(tmp_path, monkeypatch):
    """Of the images alone, with the table of the set's folder."""
    runs = []

    def probe(words):
        runs.append(words)
        out = tmp_path / "out" / "0"
        out.mkdir(parents=True, exist_ok=True)
        answer = {
            "task": "regression",
            "patients": 12,
            "measures": {a: {"r2": 0.1, "mae": 2.0} for a in ("weights", "random")},
        }
        answer["gain"] = {"difference": 0.0, "low": -1.0, "high": 1.0}
        content = {
            "scan_level": answer,
            "settings": {"pixdim": [4, 4, 4], "spatial_size": [8, 8, 8], "dataset_dir": "x"},
        }
        (out / "probe.json").write_text(json.dumps(content))
        return 0

    monkeypatch.setattr(scan_level.gvsl, "main", probe)
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps({"age": {"folder": "set", "table": "t.csv", "id": "who", "target": "age"}}))
    for _ in range(2):
        scan_level.main(["--data", str(tmp_path), "--out", str(tmp_path / "out"), "--plan", str(plan)])
    ((*_, first, second, third, fourth, fifth, sixth),) = runs
    assert [first, second, third] == ["--table", str(tmp_path / "set" / "t.csv"), "--id"]
    assert [fourth, fifth, sixth] == ["who", "--target", "age"]
    found = json.loads((tmp_path / "out" / "scan_level.json").read_text())
    assert found["age"]["pixdim"] == [4, 4, 4]
    assert "dataset_dir" not in found["age"]


def test_a_probe_that_fails_ends_it(tmp_path, monkeypatch):
    monkeypatch.setattr(scan_level.gvsl, "main", lambda _: 1)
    with pytest.raises(InputError, match="failed"):
        scan_level.told(tmp_path, tmp_path, {"folder": "a", "table": "b"})
