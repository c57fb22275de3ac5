# SPDX-License-Identifier: Apache-2.0

"""Packages of the model zoo: what goes in, what is refused."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import make_zoo
import pytest
import torch
import zoo.files
from monai.apps.utils import HashCheckError, check_hash
from monai.bundle import download_large_files
from scripts.errors import InputError
from warm_start import run_warm
from zoo.archive import check_zip, read_folder, read_zip, write_zip
from zoo.files import check_files

NAME = "blob_mr_segmentation"
PACKAGE = f"{NAME}_v0.1.0"


@pytest.fixture
def bundle(tmp_path: Path, repository: Path) -> Path:
    """A folder with everything the zoo asks for, in small."""
    folder = tmp_path / "source" / NAME
    for part in ("configs", "scripts", "docs", "models"):
        (folder / part).mkdir(parents=True)
    shutil.copyfile(repository / "bundle" / "LICENSE", folder / "LICENSE")
    metadata = json.loads((repository / "bundle" / "configs" / "metadata.json").read_text()) | {"name": NAME}
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    for name in ("train", "inference"):
        (folder / "configs" / f"{name}.json").write_text('{"bundle_root": ".", "output_dir": "runs"}')
    (folder / "scripts" / "__init__.py").touch()
    (folder / "docs" / "README.md").write_text("".join(f"## {heading.title()}\n\n" for heading in zoo.files.HEADINGS))
    (folder / "docs" / "data_license.txt").write_text("none")
    torch.save({"weight": torch.arange(1000.0)}, folder / "models" / "model.pt")
    return folder


def made(bundle: Path, out: Path, *options: str) -> Path:
    """The zip that the command makes."""
    assert make_zoo.main([str(bundle), "--out", str(out), *options]) == 0
    return out / f"{PACKAGE}.zip"


def refusal(capsys: pytest.CaptureFixture[str], *arguments: Path | str) -> str:
    """Run the command, which must refuse in one line, and give that line."""
    assert make_zoo.main([str(argument) for argument in arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("make_zoo: error: ")
    assert error.count("\n") == 1
    return error


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


def write(path: str, text: str) -> Callable[[Path], Any]:
    """A change that writes a file."""
    return lambda bundle: (bundle / path).write_text(text)


def without(path: str) -> Callable[[Path], Any]:
    """A change that takes a file away."""
    return lambda bundle: (bundle / path).unlink()


def weights(content: Any) -> Callable[[Path], Any]:
    """A change that writes other weights."""
    return lambda bundle: torch.save(content, bundle / "models" / "model.pt")


def code(modules: dict[str, str]) -> Callable[[Path], Any]:
    """A change that names two components in a configuration, and writes these modules."""

    def change(bundle: Path) -> None:
        (bundle / "configs" / "train.json").write_text(NAMES_TWO)
        for name, text in modules.items():
            path = bundle / "scripts" / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)

    return change


def linked(part: str) -> Callable[[Path], Any]:
    """A change that puts a link where a folder was."""

    def change(bundle: Path) -> None:
        elsewhere = bundle.parent / "elsewhere"
        shutil.move(bundle / part, elsewhere)
        (bundle / part).symlink_to(elsewhere)

    return change


NAMES_TWO = '{"network_def": {"_target_": "scripts.networks.Net"}, "run": ["$scripts.errors.say(1)"]}'


def metadata(**changes: Any) -> Callable[[Path], Any]:
    """A change of the metadata; None takes an entry away."""

    def change(bundle: Path) -> None:
        path = bundle / "configs" / "metadata.json"
        content = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("LICENSE"), "LICENSE is missing"),
        (without("models/model.pt"), "models/model.pt is missing"),
        (without("docs/data_license.txt"), "docs/data_license.txt is missing"),
        (without("configs/metadata.json"), "configs/metadata.json is missing, or gives no name"),
        (write("notes.txt", ""), "notes.txt does not belong into a release"),
        (write("models/model.ts", ""), "models/model.ts does not belong into a release"),
        (lambda bundle: (bundle / "docs" / "link.md").symlink_to(bundle / "LICENSE"), "link.md is a link"),
        (
            write("configs/train.json", '{\n"dir": "/home/me/x"}'),
            "configs/train.json, line 2, names a path of one machine",
        ),
        (linked("scripts"), "scripts is a link: put what it leads to there"),
        (code({}), "configs/train.json names scripts.networks.Net, which is not in the bundle"),
        (code({"errors.py": "say = 1"}), "train.json names scripts.networks.Net, which is not in the bundle"),
        (code({"networks.py": "Other = 1"}), "train.json names scripts.networks.Net, which is not in the bundle"),
        (code({"networks.py": "class Net: ..."}), "train.json names scripts.errors.say, which is not in the bundle"),
        (
            code({"networks.py": "from .nets import Net", "errors.py": "say = print"}),
            "scripts/networks.py imports scripts.nets.Net, which is not there",
        ),
        (
            code({"networks.py": "class Net: ...", "errors.py": "import nowhere_at_all\nsay = nowhere_at_all"}),
            "its scripts do not import: ModuleNotFoundError: No module named 'nowhere_at_all'",
        ),
        (write("docs/data_license.txt", "see C:\\Users"), "docs/data_license.txt, line 1, names a path of one"),
        (write("scripts/a.py", "DATA = '/mnt/scans'"), "scripts/a.py, line 1, names a path of one"),
        (lambda bundle: (bundle / "docs" / "README.md").write_bytes(b"\xff"), "docs/README.md is not UTF-8 text"),
        (write("docs/README.md", "## Overview"), "docs/README.md has no section 'data'"),
        (write("configs/metadata.json", "{"), "configs/metadata.json is missing, or gives no name"),
        (metadata(schema="https://example.org/meta_schema_20220324.json"), "not meta_schema_20240725.json"),
        (metadata(schema=None), "is of schema None, not meta_schema_20240725.json"),
        (metadata(task=None), "does not fit meta_schema_20240725.json: $ 'task' is a required property"),
        (metadata(network_data_format={}), "does not fit meta_schema_20240725.json: $.network_data_format"),
        (metadata(name="Blob"), "names the bundle 'Blob'"),
        (metadata(name="blob_v1_segmentation"), "names the bundle 'blob_v1_segmentation'"),
        (metadata(version="0.2.0"), "is of version '0.2.0': three single digits, with an entry in the changelog"),
        (metadata(version="0.10.0", changelog={"0.10.0": "new"}), "is of version '0.10.0'"),
        (metadata(supported_versions={"monai": "<1.0"}), "supports <1.0: pip install 'monai<1.0'"),
        (metadata(supported_versions={"torch": ">=99"}), "supports >=99: pip install 'torch>=99'"),
        (weights(torch.nn.Linear(1, 1)), "models/model.pt is damaged, or holds more than tensors"),
        (write("models/model.pt", "text"), "models/model.pt is damaged, or holds more than tensors"),
        (weights({}), "models/model.pt is no plain state dictionary"),
        (weights({"network": {}, "optimizer": {}}), "models/model.pt is no plain state dictionary"),
        (weights({"epoch": 3}), "its entry 'epoch' is no tensor of finite numbers"),
        (weights({"weight": torch.tensor([1, torch.inf])}), "its entry 'weight' is no tensor of finite numbers"),
    ],
)
def test_what_a_release_must_not_be(
    change: Callable[[Path], Any], message: str, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(bundle)
    assert message in refusal(capsys, bundle, "--out", tmp_path / "dist")
    assert not list((tmp_path / "dist").iterdir())


def replaced_link(bundle: Path) -> None:
    (bundle / "docs" / "more.md").unlink()
    shutil.copy(bundle / "LICENSE", bundle / "docs" / "more.md")


CHECKPOINT = {"network": {"weight": torch.ones(3)}, "optimizer": {}}
REMEDIES: dict[str, tuple[Callable[[Path], Any], Callable[[Path], Any]]] = {
    "does not belong into a release: remove it": (write("notes.txt", ""), without("notes.txt")),
    "more.md is a link: put what it leads to there": (
        lambda bundle: (bundle / "docs" / "more.md").symlink_to(bundle / "LICENSE"),
        replaced_link,
    ),
    "names a path of one machine: write a relative one": (
        write("configs/train.json", '{"bundle_root": ".", "output_dir": "/home/me/runs"}'),
        write("configs/train.json", '{"bundle_root": ".", "output_dir": "runs"}'),
    ),
    "is not in the bundle: put its code into scripts": (
        code({}),
        code({"networks.py": "class Net: ...", "errors.py": "say = print"}),
    ),
    "is no plain state dictionary: take the model.pt of a training run": (
        weights(CHECKPOINT),
        weights(CHECKPOINT["network"]),
    ),
    "three single digits, with an entry in the changelog": (
        metadata(version="0.10.0"),
        metadata(version="0.1.1", changelog={"0.1.1": "new"}),
    ),
}


@pytest.mark.parametrize("message", REMEDIES)
def test_what_is_advised_makes_a_package(
    message: str, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, mended = REMEDIES[message]
    bad(bundle)
    assert message in refusal(capsys, bundle, "--out", tmp_path / "dist")
    mended(bundle)
    made(bundle, tmp_path / "dist")


def test_code_of_several_modules(bundle: Path, tmp_path: Path) -> None:
    """Names re-exported by a package, submodules, and assignments."""
    package = {"networks/__init__.py": "from .nets import Net", "networks/nets.py": "from .. import errors\nNet = 1"}
    code({**package, "errors.py": "try:\n    say = print\nfinally:\n    pass"})(bundle)
    made(bundle, tmp_path / "dist")


def test_a_zip_without_its_code_is_not_complete(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing of a zip is run by looking at it."""
    code({"networks.py": "class Net: ...", "errors.py": "raise SystemExit(1)\nsay = 1"})(bundle)
    files = read_folder(bundle)
    zip_path = tmp_path / f"{PACKAGE}.zip"
    write_zip(files, NAME, zip_path)
    assert make_zoo.main(["--check", str(zip_path)]) == 0
    write_zip({path: text for path, text in files.items() if path != "scripts/networks.py"}, NAME, zip_path)
    assert "names scripts.networks.Net, which is not in the bundle" in refusal(capsys, "--check", zip_path)


def test_paths_that_look_like_a_machine_s(bundle: Path) -> None:
    """Addresses, placeholders and relative paths are none."""
    text = "https://host.org/home/x  /path/to/scans  runs/tmp/a  ./work/b  a/home/b  I/O"
    (bundle / "configs" / "train.json").write_text(json.dumps({"text": text}))
    assert check_files(read_folder(bundle), NAME, bundle)["name"] == NAME


def test_no_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is no bundle: it has no folder configs" in refusal(capsys, tmp_path, "--out", tmp_path / "dist")


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
        assert f"{NAME} 0.1.0 is complete" in capsys.readouterr().out

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
        renamed = package.rename(package.with_name("blob_mr_segmentation_v0.2.0.zip"))
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


def test_command_as_typed(bundle: Path, tmp_path: Path) -> None:
    done = run_warm((make_zoo.__file__, bundle, "--out", "dist"), tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "dist" / f"{PACKAGE}.zip").is_file()
    wrong = run_warm((make_zoo.__file__, "--nothing"), tmp_path)
    assert wrong.returncode == 2
    assert wrong.stderr == "make_zoo: error: unrecognized arguments: --nothing\n"
