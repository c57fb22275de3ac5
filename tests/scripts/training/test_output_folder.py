# SPDX-License-Identifier: Apache-2.0

"""Folders are made first, and a run that is there is not overwritten."""

from __future__ import annotations

import pytest
from scripts.errors import InputError
from scripts.training import goes_on, prepare_output, write_settings
from scripts.training.checkpoints import CHECKPOINT


def test_folders_are_made(tmp_path):
    prepare_output(str(tmp_path / "a" / "b"), ckpt_dir=str(tmp_path / "c"))
    assert not list((tmp_path / "a" / "b").iterdir())
    assert (tmp_path / "c").is_dir()


@pytest.mark.parametrize("which", ["output_dir", "ckpt_dir"])
def test_a_folder_that_cannot_be_written(tmp_path, which):
    (tmp_path / "file").write_text("keep")
    folders = {"output_dir": tmp_path / "out", which: tmp_path / "file" / "out"}
    with pytest.raises(InputError, match=rf"{which} .*file/out cannot be written .*pass another --{which}"):
        prepare_output(**{name: str(folder) for name, folder in folders.items()})
    assert (tmp_path / "file").read_text() == "keep"


@pytest.mark.parametrize("which", ["output_dir", "ckpt_dir"])
def test_a_folder_that_holds_a_run(tmp_path, which):
    """Only going on is allowed; a run whose checkpoints lie elsewhere is protected too."""
    folders = {"output_dir": str(tmp_path / "out"), which: str(tmp_path / "run")}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / CHECKPOINT).write_bytes(b"precious")
    with pytest.raises(InputError, match=rf"{which} .*run already holds a run: pass --resume True"):
        prepare_output(**folders)
    prepare_output(**folders, resume=True)
    assert (tmp_path / "run" / CHECKPOINT).read_bytes() == b"precious"


def test_only_a_run_that_is_there_goes_on(tmp_path):
    assert not goes_on(str(tmp_path), resume=True)
    (tmp_path / CHECKPOINT).write_bytes(b"")
    assert goes_on(str(tmp_path), resume=True)
    assert not goes_on(str(tmp_path), resume=False)


def test_settings_of_a_run_stay(tmp_path):
    """A run goes on with its own settings alone; before its first checkpoint they may still change."""
    path = tmp_path / "settings.json"
    write_settings(str(tmp_path), {"features": (4, 8)})
    write_settings(str(tmp_path), {"features": (8, 16)})
    (tmp_path / CHECKPOINT).write_bytes(b"")
    kept = path.read_text()
    write_settings(str(tmp_path), {"features": (8, 16)})
    with pytest.raises(InputError, match=r"made with features \[8, 16\], not \[4, 8\]: pass --features as it was"):
        write_settings(str(tmp_path), {"features": (4, 8)})
    assert path.read_text() == kept
    path.write_text("{")
    write_settings(str(tmp_path), {"features": (8, 16)})
    assert path.read_text() == kept
