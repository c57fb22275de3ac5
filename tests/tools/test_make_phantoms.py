# SPDX-License-Identifier: Apache-2.0

"""The phantom generator's command: reproducible files, and its refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import make_phantoms
import nibabel as nib
import pytest
from phantoms import cohort
from support import PHANTOM_CODES as CODES


def tree(folder: Path) -> dict[str, bytes]:
    """The content of all files under a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def small_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two subjects of seed 5, of 12 mm."""
    out = tmp_path_factory.mktemp("cohort") / "new" / "phantoms"
    assert make_phantoms.main([str(out), "--subjects", "2", "--seed", "5", "--spacing", "12"]) == 0
    return out


def test_bytes_depend_on_seed_and_index_alone(small_cohort: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    args = ["--seed", "5", "--spacing", "12"]
    assert make_phantoms.main([str(other), "--subjects", "3", "--workers", "2", *args]) == 0
    few, many = tree(small_cohort), tree(other)
    assert len(few) == 5
    assert len(many) == 7
    del few["dataset.json"]
    assert all(many[name] == content for name, content in few.items())
    assert len(set(few.values())) == len(few), "subjects differ"

    third = tmp_path / "third"
    assert make_phantoms.main([str(third), "--subjects", "1", "--seed", "6", "--spacing", "12"]) == 0
    assert tree(third)["imagesTr/phantom_000.nii.gz"] != few["imagesTr/phantom_000.nii.gz"]


def test_layout_is_that_of_the_decathlon(small_cohort: Path) -> None:
    content = json.loads((small_cohort / "dataset.json").read_text())
    assert content["numTraining"] == len(content["training"]) == 2
    assert content["numTest"] == 0
    assert content["modality"] == {"0": "CT"}
    assert content["tensorImageSize"] == "3D"
    assert content["labels"]["205"] == "myocardium"
    assert {int(code) for code in content["labels"]} == {0, *CODES.values()}
    assert content["licence"].startswith("CC0")
    assert content["generator"] == cohort.parameters(5, 12.0)
    assert {"name", "description", "reference", "release"} <= content.keys()
    assert content["training"][0]["image"] == "./imagesTr/phantom_000.nii.gz"
    for row in content["training"]:
        image, label = (nib.Nifti1Image.from_filename(small_cohort / row[key]) for key in ("image", "label"))
        assert image.shape == label.shape
        assert image.header.get_xyzt_units()[0] == "mm"
    assert not [name for name in tree(small_cohort) if Path(name).name.startswith(".")]


def test_asking_again_adds_only_what_is_missing(small_cohort: Path, tmp_path: Path) -> None:
    out = tmp_path / "again"
    shutil.copytree(small_cohort, out)
    first = out / "imagesTr" / "phantom_000.nii.gz"
    (out / "labelsTr" / "phantom_001.nii.gz").unlink()
    before = first.stat().st_mtime_ns
    assert make_phantoms.main([str(out), "--subjects", "2", "--seed", "5", "--spacing", "12"]) == 0
    assert tree(out) == tree(small_cohort)
    assert first.stat().st_mtime_ns == before


def test_interruption_leaves_no_partial_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(source: Path, target: Path) -> None:
        if "labelsTr" in str(target):
            raise KeyboardInterrupt
        Path(source).rename(target)

    monkeypatch.setattr(cohort.os, "replace", fail)
    args = [str(tmp_path), "--subjects", "1", "--spacing", "12"]
    assert make_phantoms.main(args) == 130
    assert sorted(tree(tmp_path)) == ["dataset.json", "imagesTr/phantom_000.nii.gz"]
    assert json.loads((tmp_path / "dataset.json").read_text())["training"] == []
    assert capsys.readouterr().err == "make_phantoms: interrupted\n"
    monkeypatch.undo()
    assert make_phantoms.main(args) == 0
    assert len(tree(tmp_path)) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--subjects", "-3"], "--subjects must be at least 1, not -3"),
        (["--subjects", "many"], "argument --subjects: invalid int value: 'many'"),
        (["--seed", "-1"], "--seed must not be negative, not -1"),
        (["--spacing", "0.5"], "--spacing must be from 2 to 12 mm, not 0.5"),
        (["--spacing", "nan"], "--spacing must be from 2 to 12 mm, not nan"),
        (["--workers", "0"], "--workers must be at least 1, not 0"),
    ],
)
def test_wrong_arguments_are_refused(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        make_phantoms.main([str(tmp_path / "out"), *arguments])
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"make_phantoms: error: {message}\n"
    assert not (tmp_path / "out").exists()


def refusal(out: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run the command, which must refuse in one line, and give that line."""
    assert make_phantoms.main([str(out), "--subjects", "1", "--spacing", "12", *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("make_phantoms: error: ")
    assert error.count("\n") == 1
    return error


def test_unusable_folders_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.write_text("kept")
    assert "is a file, not a folder" in refusal(file, capsys)
    assert "Not a directory" in refusal(file / "below", capsys)
    assert file.read_text() == "kept"


def test_unwritable_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def deny(self: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", deny)
    assert "Permission denied" in refusal(tmp_path / "out", capsys)


@pytest.mark.parametrize("arguments", [("--seed", "6"), ("--seed", "5", "--spacing", "11")])
def test_cohorts_are_not_mixed(
    arguments: tuple[str, ...], small_cohort: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(small_cohort)
    assert "is of other parameters" in refusal(small_cohort, capsys, *arguments)
    assert tree(small_cohort) == before


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"name": "Heart", "training": []}', '{"generator": 1, "training": [1]}']
)
def test_foreign_dataset_is_refused(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "dataset.json").write_text(content)
    assert "is not of this generator" in refusal(tmp_path, capsys)
    assert tree(tmp_path) == {"dataset.json": content.encode()}
