# SPDX-License-Identifier: Apache-2.0

"""``make probe`` as a user runs it: a verdict, its numbers, a page; a line where there is nothing to probe."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import support

UNSET = dict.fromkeys(("pixdim", "spatial_size", "learning_rate", "epochs", "epoch_length", "validation_pairs"))


@pytest.fixture
def labelled(tmp_path: Path, make_cohort: Callable) -> Path:
    """Six subjects with one structure, and their ages and groups."""
    folder = make_cohort(tmp_path / "cohort & <b>more</b>")
    path = folder / "dataset.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, "labels": {"0": "background", "1": "ridge"}}), encoding="utf-8")
    return folder


@pytest.fixture
def probe(repository: Path, run_bundle: Callable) -> Callable[..., Any]:
    """The command of ``gvsl probe`` on a small network of random weights."""
    files = [str(repository / f"bundle/configs/{name}.json") for name in ("train", "probe")]
    small = {"load_pretrain": False, "features": [4, 8], "steps": 2, "folds": 2}
    return lambda **options: run_bundle(config_file=files, **{**UNSET, **small, **options})


def test_a_folder_of_labelled_scans_gets_a_verdict(probe: Callable, labelled: Path, tmp_path: Path) -> None:
    done = probe(dataset_dir=labelled, output_dir=tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "planned pixdim        [1.0, 1.0, 1.0]" in done.stdout
    found = json.loads((tmp_path / "out" / "probe.json").read_text(encoding="utf-8"))
    assert f"verdict: {found['verdict']['verdict']}" in done.stdout
    assert found["verdict"]["verdict"] in ("helps", "no difference seen", "does not help")
    assert found["structures"] == ["ridge"]
    assert found["pretrained_on"] == 0
    assert found["settings"]["spatial_size"] == [24, 24, 24]
    assert len(found["by_subject"]) == found["subjects"] == 6
    assert list(found["fine_tuning_by_step"]["weights"]) == ["1", "2"]
    for name in ("fine_tuning", "linear_probe", "true_against_exchanged_labels", "carry_over"):
        assert found[name]["low"] <= found[name]["difference"] <= found[name]["high"]
        assert found[name]["difference"] == pytest.approx(found[name]["mean"] - found[name]["other_mean"])
    assert (tmp_path / "out" / "probe.png").is_file()
    page = (tmp_path / "out" / "probe.html").read_text(encoding="utf-8")
    assert found["verdict"]["verdict"].capitalize() in page
    assert page.count("<img") == page.count('src="data:image/') == 8
    assert "<b>more</b>" not in page
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", page)


def test_another_network_is_probed(repository: Path, run_bundle: Callable, labelled: Path, tmp_path: Path) -> None:
    """One of MONAI's, by its overlay; random weights are made as its own were."""
    files = [str(repository / f"bundle/configs/{name}.json") for name in ("train", "segresnet", "probe")]
    few = {"load_pretrain": False, "features": [8, 16, 32, 64], "steps": 2, "folds": 2, "most_scans": 5}
    done = run_bundle(config_file=files, **UNSET, **few, dataset_dir=labelled, output_dir=tmp_path / "out")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / "probe.json").read_text(encoding="utf-8"))
    assert found["linear_probe"]["mean"] > 0.3
    assert found["features"]["weights"] != found["features"]["random"]


def test_a_table_is_told_without_labels(probe: Callable, labelled: Path, tmp_path: Path) -> None:
    content = json.loads((labelled / "dataset.json").read_text(encoding="utf-8"))
    content["training"] = [{"image": entry["image"]} for entry in content["training"]]
    (labelled / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    lines = ["name,age", *(f"subject_{n},{40 + n}.5" for n in range(6))]
    (labelled / "people.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    table = {"table": "people.csv", "id": "name", "target": "age"}
    few = probe(dataset_dir=labelled, output_dir=tmp_path / "few", **table, task="regression")
    assert few.returncode == 1
    assert "error: column 'age' needs finite numbers of 10 patients or more" in few.stderr
    assert "Traceback" not in few.stderr
    nothing = probe(dataset_dir=labelled, output_dir=tmp_path / "none")
    assert nothing.returncode == 1
    assert "error: there is nothing to tell: give labels" in nothing.stderr


def test_a_bundle_in_a_folder_named_by_a_number(labelled: Path, repository: Path, tmp_path: Path) -> None:
    """Python Fire takes 2024_06 for 202406, before any code of the bundle runs."""
    (tmp_path / "2024_06").symlink_to(repository / "bundle")
    files = [f"2024_06/configs/{name}.json" for name in ("train", "probe")]
    options = {"config_file": files, "bundle_root": "2024_06", "dataset_dir": labelled, "dry_run": True}
    done = support.run_bundle(Path("2024_06"), "probe", cwd=tmp_path, **options)
    assert done.returncode == 0, done.stderr
    assert "6 scans of 6 subjects would be used" in done.stdout
