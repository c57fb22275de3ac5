# SPDX-License-Identifier: Apache-2.0

"""The task that carries labels inside MONAI Label, without a server: what is written, and what its parts do."""

from __future__ import annotations

import os
from pathlib import Path

import make_label_task
import numpy as np
import pytest
from label_server import dices, scan, write
from monai.bundle import ConfigParser
from scripts.errors import InputError
from scripts.matching import saved_labels
from scripts.training import ModelLoader

SIZES = [(36, 30, 26), (32, 34, 24), (30, 28, 28)]


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    """A folder of a server: scans, one of which has a submitted label; what the server made itself is none."""
    folder = tmp_path / "studies"
    for number, size in enumerate(SIZES):
        write(folder / f"p{number}.nii.gz", scan(200 + number, size)[0])
        write(folder / "labels" / "original" / f"p{number}.nii.gz", scan(200 + number, size)[1])
    write(folder / "labels" / "final" / "p0.nii.gz", scan(200, SIZES[0])[1])
    return folder


def test_the_task_carries_what_was_submitted(studies: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    out.mkdir()
    folder = make_label_task.make(str(studies), out, ["core", "shell"], make_label_task.BUNDLE / "models" / "model.pt")
    assert {path.name for path in folder.iterdir()} == {"LICENSE", "configs", "models", "scripts"}
    assert not list(folder.rglob("train.json"))  # nothing to train, and the server lists no trainer
    parser = ConfigParser(ConfigParser.load_config_file(folder / "configs" / "inference.json"))
    prepare, infer, network = (parser.get_parsed_content(key) for key in ("preprocessing", "inferer", "network_def"))
    ModelLoader(network, str(folder / "models" / "model.pt"))()
    image = prepare({"image": str(studies / "p2.nii.gz")})["image"]
    found = infer(image[None], network.eval())
    assert found.shape == (1, 1, *SIZES[2])
    np.testing.assert_allclose(found[0].affine, image.affine)
    codes, truth = found[0, 0].numpy(), scan(202, SIZES[2])[1]
    assert min(dices(codes, truth)) > 0.5
    for number in (0, 1):  # who drew one structure in each scan did not say that the other is not there
        label = scan(200 + number, SIZES[number])[1]
        write(studies / "labels" / "final" / f"p{number}.nii.gz", np.where(label == number + 1, label, 0))
    assert min(dices(infer(image[None], network)[0, 0].numpy(), truth)) > 0.5
    (studies / "labels" / "final" / "p1.nii.gz").unlink()
    with pytest.raises(InputError, match=r"no other scan beside .*p0\.nii\.gz has a submitted label yet"):
        infer(prepare({"image": str(studies / "p0.nii.gz")})["image"][None], network)


def test_the_last_saved_come_first(studies: Path) -> None:
    """Labels of scans that are gone, and hidden files, are left out."""
    final = studies / "labels" / "final"
    for number, name in enumerate(("p1.nii", "gone.nii.gz", ".p2.nii.gz")):
        write(final / name, np.zeros((2, 2, 2), np.uint8))
        os.utime(final / name, (2e9 + number, 2e9 + number))
    found = [(Path(image).name, Path(label).name) for image, label in saved_labels(str(studies / "p2.nii.gz"))]
    assert found == [("p1.nii.gz", "p1.nii"), ("p0.nii.gz", "p0.nii.gz")]


@pytest.mark.parametrize(
    ("labels", "there", "message"),
    [
        (["core", "Core"], "model", "names each structure once"),
        (["background"], "model", "not the background"),
        (["core"], "model/carried_labels", "is there already"),
        (["core"], "", "does not exist"),
    ],
)
def test_mistakes_get_one_line(
    labels: list[str], there: str, message: str, studies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / there).mkdir(parents=True, exist_ok=True)
    assert make_label_task.main([str(studies), str(tmp_path / "model"), "--labels", *labels]) == 1
    error = capsys.readouterr().err
    assert error.startswith("make_label_task: error: ")
    assert message in error
    assert error.count("\n") == 1


def test_what_is_advised_is_taken(studies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The folder that is missing, names each once, a folder that is there moved away."""
    out = tmp_path / "model"
    assert make_label_task.main([str(studies), str(out), "--labels", "core"]) == 1
    assert "it is the folder 'model' of MONAI Label's app" in capsys.readouterr().err
    out.mkdir()
    assert make_label_task.main([str(studies), str(out), "--labels", "core", "Core"]) == 1
    assert make_label_task.main([str(studies), str(out), "--labels", "core", "shell"]) == 0
    assert make_label_task.main([str(studies), str(out), "--labels", "core", "shell"]) == 1
    assert "is there already: move it away" in capsys.readouterr().err
    (out / "carried_labels").rename(tmp_path / "before")
    assert make_label_task.main([str(studies), str(out), "--labels", "core", "shell"]) == 0
