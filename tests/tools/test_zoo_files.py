# SPDX-License-Identifier: Apache-2.0

"""What a release of a bundle must not be, and that what is advised mends it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import make_zoo
import pytest
import torch
from zoo.archive import read_folder, write_zip
from zoo.files import check_files
from zoo_packages import NAME, PACKAGE, made, refusal


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
        *(
            (code({"networks.py": text, "errors.py": "say = 1"}), "train.json names scripts.networks.Net, which is not")
            for text in ("def make():\n    Net = 1", "class Other:\n    Net = 1", "nets = [Net for Net in ()]")
        ),
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
        (metadata(version="9.9.9"), "is of version '9.9.9': three single digits, with an entry in the changelog"),
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
    """Names re-exported by a package, submodules, and assignments, on a condition too."""
    nets = "from .. import errors\nif errors:\n    for Net in range(2):\n        pass"
    package = {"networks/__init__.py": "from .nets import Net", "networks/nets.py": nets}
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
    text = "https://host.org/{0}/x  /path/to/scans  runs/tmp/a  ./{1}/b  a/{0}/b  I/O".format("home", "work")
    (bundle / "configs" / "train.json").write_text(json.dumps({"text": text}))
    assert check_files(read_folder(bundle), NAME, bundle)["name"] == NAME
