# SPDX-License-Identifier: Apache-2.0

"""The packages of a model zoo: what is in them, and the command as typed."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import make_zoo
import pytest
import torch
from monai.apps.utils import HashCheckError, check_hash
from monai.bundle import download_large_files
from scripts.files import load_file
from warm_start import run_warm
from zoo_packages import NAME, PACKAGE, made, refusal


class TestPackage:
    def test_single_top_folder_with_all_files(self, bundle: Path, tmp_path: Path) -> None:
        other = bundle / "models" / "resenc"  # of another network, as a run leaves it
        other.mkdir()
        shutil.copyfile(bundle / "models" / "model.pt", other / "model.pt")
        (other / "settings.json").write_text("{}")
        with zipfile.ZipFile(made(bundle, tmp_path / "dist")) as archive:
            archive.extractall(tmp_path / "out")
        assert [path.name for path in (tmp_path / "out").iterdir()] == [NAME]
        files = {path.relative_to(bundle) for path in bundle.rglob("*") if path.is_file()}
        assert len(files) == 10
        for file in files:
            assert (tmp_path / "out" / NAME / file).read_bytes() == (bundle / file).read_bytes()

    def test_same_bytes_whatever_work_left_behind(self, bundle: Path, tmp_path: Path) -> None:
        first = made(bundle, tmp_path / "first").read_bytes()
        again = tmp_path / "again" / NAME
        for path in sorted(bundle.rglob("*"), reverse=True):  # other order, other dates, other modes
            if path.is_file():
                (again / path.relative_to(bundle)).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, again / path.relative_to(bundle))
                os.chmod(again / path.relative_to(bundle), 0o755)
                os.utime(again / path.relative_to(bundle), (1, 1))
        left = ["runs/train/model.pt", "data/a.nii.gz", "eval/schema.json", "scripts/__pycache__/a.pyc", "train.log"]
        for name in (*left, ".hidden/file", "configs/.swp", "models/checkpoint.pt", "models/README.md"):
            (again / name).parent.mkdir(parents=True, exist_ok=True)
            (again / name).write_bytes(b"left")
        assert made(again, tmp_path / "second").read_bytes() == first

    def test_list_of_the_zoo_s_kind(self, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        package = made(bundle, tmp_path, "--url", "https://example.org/zoo")
        (key, entry), *others = json.loads((tmp_path / "model_info.json").read_text()).items()
        assert not others
        assert key == PACKAGE
        assert entry["source"] == f"https://example.org/zoo/{PACKAGE}.zip"
        assert check_hash(str(package), entry["checksum"], "sha1")
        assert re.search(rf"\d\.\d\d MB  \S*{PACKAGE}\.zip", capsys.readouterr().out)

    def test_large_weights_can_be_fetched_apart(
        self, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = tmp_path / "dist"
        made(bundle, out)
        assert not (out / NAME).exists()  # nothing is large
        monkeypatch.setattr(make_zoo, "LARGE", 4000)
        made(bundle, out, "--url", out.as_uri())
        kept = shutil.copytree(bundle, tmp_path / "pull_request")
        (kept / "models" / "model.pt").unlink()
        shutil.copy(out / NAME / "large_files.yml", kept)
        download_large_files(str(kept))
        assert (kept / "models" / "model.pt").read_bytes() == (bundle / "models" / "model.pt").read_bytes()
        (out / f"{PACKAGE}_model.pt").write_bytes(b"another")  # the checksum is looked at
        (kept / "models" / "model.pt").unlink()
        with pytest.raises(HashCheckError):
            download_large_files(str(kept))


@pytest.fixture
def shipped(repository: Path, tmp_path: Path) -> Callable[[str, Path], bytes]:
    """The weights in the package of a child of the clone that has these weights."""

    def make(name: str, weights: Path) -> bytes:
        folder, out = tmp_path / name, tmp_path / "dist"
        shutil.copytree(repository / "downstream" / name, folder, ignore=shutil.ignore_patterns("runs", "models"))
        (folder / "models").mkdir()
        shutil.copy(weights, folder / "models" / "model.pt")
        assert make_zoo.main([str(folder), "--out", str(out)]) == 0
        with zipfile.ZipFile(next(out.glob("*.zip"))) as archive:
            return archive.read(f"{name}/models/model.pt")

    return make


def test_weights_that_nobody_trained_begin_with_the_parent_of_today(
    shipped: Callable, repository: Path, tmp_path: Path
) -> None:
    """Those that are there may come from earlier ones of the parent."""
    content = shipped("coronary_ct_segmentation", repository / "downstream/hippocampus_mr_segmentation/models/model.pt")
    assert content == (tmp_path / "coronary_ct_segmentation" / "models" / "model.pt").read_bytes()
    weights = torch.load(io.BytesIO(content), weights_only=True)
    parent = load_file(repository / "bundle" / "models" / "model.pt")
    assert all(torch.equal(weights[key], value) for key, value in parent.items() if key.startswith("backbone."))


def test_trained_weights_are_shipped_as_they_are(shipped: Callable, repository: Path) -> None:
    weights = repository / "downstream/hippocampus_mr_segmentation/models/model.pt"
    assert shipped("hippocampus_mr_segmentation", weights) == weights.read_bytes()


def test_no_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is no bundle: it has no folder configs" in refusal(capsys, tmp_path, "--out", tmp_path / "dist")


def test_command_as_typed(bundle: Path, tmp_path: Path) -> None:
    done = run_warm((make_zoo.__file__, bundle, "--out", "dist"), tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "dist" / f"{PACKAGE}.zip").is_file()
    wrong = run_warm((make_zoo.__file__, "--nothing"), tmp_path)
    assert wrong.returncode == 2
    assert wrong.stderr == "make_zoo: error: unrecognized arguments: --nothing\n"
