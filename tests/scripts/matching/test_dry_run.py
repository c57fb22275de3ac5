# SPDX-License-Identifier: Apache-2.0

"""``--dry_run True`` lists the same of every command, which also has what messages advise, as ``--skip_bad True``."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from scripts.errors import InputError
from scripts.finetuning import images_to_predict
from scripts.matching import list_pairs, list_propagation, list_scans
from support import write_nifti

REPOSITORY = Path(__file__).parents[3]
CONFIGS = [
    *(REPOSITORY / "bundle" / "configs" / f"{name}.json" for name in ("train", "inference")),
    *(REPOSITORY / "tools" / "child").glob("*ation/train.json"),
    *(REPOSITORY / "tools" / "child").glob("*ation/inference.json"),
]
"""The others are overlays of these."""
TELLING = ("data/find_scans", "data/dataset_json", "data/folder_layouts", "data/kinds", "data/scan_checks", "errors")
"""Modules whose messages every command may show that reads a folder of scans."""
NOT_EVERYWHERE = {"label_maps", "cache_dir", "resume", "num_workers", "cache_rate", "logging_file"}
NOT_EVERYWHERE |= {"name", "config_file"}
"""Named where the setting exists only, see ``has_options``; or of a training; or MONAI's own."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two persons of two contrasts, a label map, a scan with NaN, and an atlas elsewhere."""
    rng = np.random.default_rng(0)
    for person in "ab":
        for contrast in ("t1", "t2"):
            values = rng.normal(100, 20, (12, 14, 10)).astype(np.float32)
            write_nifti(tmp_path / "scans" / f"{person}_{contrast}.nii.gz", values, np.diag([1, 1, 2, 1]))
    write_nifti(tmp_path / "scans" / "a_seg.nii.gz", (values > 100).astype(np.uint8), np.diag([1, 1, 2, 1]))
    write_nifti(tmp_path / "scans" / "c_t1.nii.gz", np.where(values > 120, np.nan, values).astype(np.float32))
    write_nifti(tmp_path / "atlas.nii.gz", values)
    write_nifti(tmp_path / "atlas_label.nii.gz", (values > 100).astype(np.uint8))
    return tmp_path


def commands(folder: Path) -> dict[str, object]:
    scans, atlas, label = (str(folder / name) for name in ("scans", "atlas.nii.gz", "atlas_label.nii.gz"))
    return {
        "matching a folder": lambda **options: list_pairs(scans, **options),
        "matching to one": lambda **options: list_pairs(fixed=atlas, moving=scans, **options),
        "features": lambda **options: list_scans(scans, **options),
        "carrying": lambda **options: list_propagation(scans, atlas, label, **options),
        "a child": lambda **options: images_to_predict(scans, **options),
    }


@pytest.mark.parametrize("command", ["matching a folder", "matching to one", "features", "carrying", "a child"])
def test_folders(folder, command, capsys):
    run = commands(folder)[command]
    with pytest.raises(InputError, match=r"1 of 5 scans cannot be used \(--skip_bad True leaves them out\)"):
        run()
    assert len(run(skip_bad=True)) == (3 if command == "matching a folder" else 4)
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        run(skip_bad=True, dry_run=True)
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert re.search(r"scan +subject +kind +voxels +voxel size, mm", told)
    assert re.search(rf"{folder / 'scans' / 'b_t2.nii.gz'} +b +t2 +12x14x10 +1x1x2", told)
    assert re.search(r"\d scans of 2 subjects would be used; 2 left out", told)
    assert re.search(rf"left out: {folder / 'scans' / 'a_seg.nii.gz'} is a label map", told)
    assert re.search(rf"left out: {folder / 'scans' / 'c_t1.nii.gz'} has \d+ voxels that are NaN", told)
    assert "would write" in told
    taken = run(skip_bad=True, kind="t1")
    assert len(taken) == (1 if command == "matching a folder" else 2)


def test_scans_named_one_by_one(folder, capsys):
    one, bad = (str(folder / "scans" / name) for name in ("a_t1.nii.gz", "c_t1.nii.gz"))
    for run in (lambda **o: list_scans([one, bad], **o), lambda **o: images_to_predict("", [one, bad], **o)):
        with pytest.raises(InputError, match=r"1 of 2 scans cannot be used .*--skip_bad True"):
            run()
        assert [Path(item["image"]).name for item in run(skip_bad=True)] == ["a_t1.nii.gz"]
    with pytest.raises(InputError, match=r"nothing to match without .*c_t1.nii.gz, which cannot be used"):
        list_pairs(fixed=bad, moving=one, skip_bad=True)
    with pytest.raises(SystemExit):
        list_pairs(fixed=str(folder / "atlas.nii.gz"), moving=one, dry_run=True)
    assert re.search(r"2 scans would be used; 0 left out\nwould write a_t1_to_atlas from", capsys.readouterr().out)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_options_that_messages_about_folders_name_are_settings(config):
    """Matching and predictions advised ``--skip_bad True``, and refused it."""
    named: set[str] = set()
    for module in TELLING:
        source = (REPOSITORY / "bundle" / "scripts" / f"{module}.py").read_text(encoding="utf-8")
        named |= set(re.findall(r"--([a-z]\w+)", source))
    settings = json.loads(config.read_text(encoding="utf-8"))
    assert named - NOT_EVERYWHERE - settings.keys() == set()
