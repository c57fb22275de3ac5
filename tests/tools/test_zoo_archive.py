# SPDX-License-Identifier: Apache-2.0

"""A package that was fetched: its checksum, damage, paths that lead outside, and weights that are code."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import stat
import zipfile
from pathlib import Path
from typing import Any

import make_zoo
import pytest
import torch
from scripts.errors import InputError
from zoo.archive import check_zip, read_folder, read_zip
from zoo.files import check_files
from zoo_packages import NAME, PACKAGE, VERSION, made, refusal


class TestCheck:
    @pytest.fixture
    def package(self, bundle: Path, tmp_path: Path) -> Path:
        return made(bundle, tmp_path / "dist")

    def test_the_right_one(self, package: Path, capsys: pytest.CaptureFixture[str]) -> None:
        content = package.read_bytes()
        for checksum in (hashlib.sha1(content).hexdigest(), hashlib.sha256(content).hexdigest().upper()):
            assert make_zoo.main(["--check", str(package), "--checksum", checksum]) == 0
        listed = ["--model_info", str(package.with_name("model_info.json"))]
        assert make_zoo.main(["--check", str(package), *listed]) == 0
        assert f"{NAME} {VERSION} is complete" in capsys.readouterr().out

    def test_a_wrong_checksum(self, package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert "is not the file announced: its sha1 is" in refusal(capsys, "--check", package, "--checksum", 40 * "0")
        assert "its sha256 is" in refusal(capsys, "--check", package, "--checksum", 64 * "0")
        assert "is no checksum" in refusal(capsys, "--check", package, "--checksum", "abc")
        info = tmp_path / "model_info.json"
        assert "cannot be read" in refusal(capsys, "--check", package, "--model_info", info)
        info.write_text(json.dumps({PACKAGE: {"checksum": 40 * "0"}}))
        assert "is not the file announced" in refusal(capsys, "--check", package, "--model_info", info)
        for content in ("{}", "[]", "{", json.dumps({PACKAGE: {}})):
            info.write_text(content)
            assert f"has no entry '{PACKAGE}'" in refusal(capsys, "--check", package, "--model_info", info)

    def test_a_damaged_one(self, package: Path, capsys: pytest.CaptureFixture[str]) -> None:
        content = package.read_bytes()
        assert "does not exist" in refusal(capsys, "--check", package.with_name("none.zip"))
        flipped = bytearray(content)
        flipped[len(content) // 2] ^= 255
        for damaged in (content[: len(content) // 2], bytes(flipped), b"no zip", b""):
            package.write_bytes(damaged)
            assert "is damaged, or no zip" in refusal(capsys, "--check", package)
        package.write_bytes(content)  # downloaded again
        assert make_zoo.main(["--check", str(package)]) == 0

    @pytest.mark.parametrize(
        "name", ["../evil.py", f"{NAME}/../../evil.py", "/evil.py", f"{NAME}\\..\\evil.py", "C:/evil.py", "c:evil.py"]
    )
    def test_paths_that_lead_outside(
        self, name: str, package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with zipfile.ZipFile(package, "a") as archive:
            archive.writestr(name, "")
        assert "leads outside the bundle's folder" in refusal(capsys, "--check", package)

    def test_a_link(self, package: Path, capsys: pytest.CaptureFixture[str]) -> None:
        link = zipfile.ZipInfo(f"{NAME}/docs/link.md")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        with zipfile.ZipFile(package, "a") as archive:
            archive.writestr(link, "/somewhere")
        assert "leads outside the bundle's folder" in refusal(capsys, "--check", package)

    def test_other_content(self, package: Path, capsys: pytest.CaptureFixture[str]) -> None:
        renamed = package.rename(package.with_name("blob_mr_segmentation_v9.9.9.zip"))
        assert f"its name must be {PACKAGE}.zip" in refusal(capsys, "--check", renamed)
        shutil.copy(renamed, package)  # as the message says
        assert make_zoo.main(["--check", str(package)]) == 0
        with zipfile.ZipFile(renamed, "a") as archive:
            archive.writestr("other/file.txt", "")
        assert f"holds 2 top folders ({NAME}, other), not one" in refusal(capsys, "--check", renamed)

    def test_a_file_twice(self, package: Path, capsys: pytest.CaptureFixture[str]) -> None:
        with zipfile.ZipFile(package, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr(f"{NAME}/LICENSE", "another")
        assert "LICENSE is there twice" in refusal(capsys, "--check", package)

    def test_nothing_is_unpacked(self, package: Path, tmp_path: Path) -> None:
        before = sorted(tmp_path.rglob("*"))
        name, files = read_zip(package)
        assert (name, len(files)) == (NAME, 8)
        check_zip(package)
        assert sorted(tmp_path.rglob("*")) == before

    def test_weights_that_are_code(self, bundle: Path, tmp_path: Path) -> None:
        """A pickle that would call a function when loaded is refused, not run."""
        victim = tmp_path / "victim"

        class Evil:
            def __reduce__(self) -> tuple[Any, ...]:
                return Path.touch, (victim,)

        file = io.BytesIO()
        torch.save({"weight": Evil()}, file)
        files = read_folder(bundle) | {"models/model.pt": file.getvalue()}
        with pytest.raises(InputError, match="holds more than tensors"):
            check_files(files, NAME, bundle)
        assert not victim.exists()
