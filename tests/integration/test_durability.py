# SPDX-License-Identifier: Apache-2.0

"""Trained work is not lost: to kills, disks, data that changes, or files made by somebody hostile."""

from __future__ import annotations

import json
import os
import resource
import shutil
from pathlib import Path

import kill_and_resume
import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from ignite.engine import Events
from monai.bundle import ConfigParser
from scripts.data import scan_name
from scripts.errors import user_message
from scripts.files import load_file


@pytest.fixture
def broken(cohort, tmp_path, workflow):
    """Train on a copy of the cohort until ``fault(scans, run)``, called at a step, has ended it; the user's message."""

    def run(fault, event=None, **overrides) -> str:
        scans, output = tmp_path / "scans", tmp_path / "run"
        shutil.copytree(cohort, scans)
        made = workflow(scans, output, **{"epochs": 2, "epoch_length": 8, **overrides})
        made.initialize()
        trainer = made.parser.get_parsed_content("train#trainer")
        trainer.add_event_handler(event or Events.ITERATION_STARTED(once=3), lambda: fault(scans, output))
        with pytest.raises(Exception) as caught:  # noqa: PT011  (MONAI wraps errors in its own)
            made.run()
        return user_message(caught.value) or pytest.fail(f"no clear message: {caught.value!r}")

    return run


class TestDataThatChanges:
    """Scans are read again at each draw where they are not cached."""

    @pytest.mark.parametrize("workers", [0, 1])
    def test_a_file_disappears(self, broken, tmp_path, capsys, workers):
        def fault(scans: Path, _):
            for path in (scans / "imagesTr").iterdir():
                path.unlink()

        message = broken(fault, cache_rate=0.0, num_workers=workers)
        assert "imagesTr/subject_" in message
        assert "does not exist; it was fine when training began" in message
        assert "\n" not in message
        assert load_file(tmp_path / "run" / "checkpoint.pt")["step"] > 1
        assert "--resume True goes on there" in capsys.readouterr().err

    def test_a_file_turns_corrupt(self, broken, tmp_path):
        def fault(scans: Path, _):
            for path in (scans / "imagesTr").iterdir():
                path.write_bytes(path.read_bytes()[:2000])

        message = broken(fault, cache_rate=0.0)
        assert "cannot be read" in message
        assert load_file(tmp_path / "run" / "checkpoint.pt")["step"] > 1

    def test_a_cached_file_does_not_matter(self, cohort, tmp_path, workflow, pretrain):
        shutil.copytree(cohort, tmp_path / "scans")
        made = workflow(tmp_path / "scans", tmp_path / "run", epochs=1)
        made.initialize()
        trainer = made.parser.get_parsed_content("train#trainer")
        trainer.add_event_handler(Events.ITERATION_STARTED(once=1), lambda: shutil.rmtree(tmp_path / "scans"))
        made.run()
        assert load_file(tmp_path / "run" / "checkpoint.pt")["epoch"] == 1

    def test_a_cut_file_of_the_disk_cache_is_made_anew(self, cohort, tmp_path, pretrain):
        cache = tmp_path / "cache"
        expected = pretrain(cohort, tmp_path / "first", epochs=1, cache_dir=str(cache))
        whole = {path: path.read_bytes() for path in cache.glob("*.pt")}
        for path, content in whole.items():
            path.write_bytes(content[:500])
        assert pretrain(cohort, tmp_path / "second", epochs=1, cache_dir=str(cache)) == expected
        assert {path: load_file(path).keys() for path in whole} == {p: load_file(p).keys() for p in cache.glob("*.pt")}


class TestDisk:
    def test_full(self, broken, tmp_path):
        """No file may grow beyond some kilobytes, as on a full disk: the checkpoint before stays whole."""
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        try:
            message = broken(
                lambda *_: resource.setrlimit(resource.RLIMIT_FSIZE, (20000, limit[1])), Events.EPOCH_STARTED(once=2)
            )
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        assert "cannot be written" in message
        assert "File too large" in message
        assert load_file(tmp_path / "run" / "checkpoint.pt")["epoch"] == 1
        assert not list((tmp_path / "run").glob("*.part"))

    def test_folder_is_gone(self, broken, tmp_path):
        """Taken away, or its disk unmounted, during the first epoch."""
        message = broken(lambda _, run: os.rename(run, run.with_name("moved")), epoch_length=3)
        assert "is not there any more" in message or "cannot be written" in message
        assert f"{tmp_path / 'run'}" in message


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the processes in /proc")
def test_killed_at_a_random_moment(tmp_path, monkeypatch):
    """As ``benchmarks/kill_and_resume.py`` does it many times; here while a checkpoint is being written."""
    monkeypatch.setitem(kill_and_resume.SETTINGS, "epochs", 3)
    monkeypatch.setitem(kill_and_resume.SETTINGS, "epoch_length", 4)
    assert kill_and_resume.main([str(tmp_path), "--kills", "1", "--seed", "6"]) == 0
    told = json.loads((tmp_path / "kills.json").read_text())
    assert len(told["kills"]) == 1
    assert all(run["same"] for run in told["runs"])


@settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    shape=st.tuples(*[st.integers(4, 19)] * 3),
    spacing=st.tuples(*[st.floats(0.4, 3.0)] * 3),
    axes=st.permutations([0, 1, 2]),
    flips=st.tuples(*[st.booleans()] * 3),
    dtype=st.sampled_from([np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64]),
    features=st.lists(st.integers(1, 9), min_size=2, max_size=4),
    batch=st.integers(1, 3),
    size=st.tuples(*[st.integers(8, 17)] * 3),
    symmetric=st.booleans(),
    overlays=st.sampled_from([(), ("convolution_head",), ("cascade_head",)]),
)
def test_any_scans_and_sizes_are_trained_on(
    tmp_path_factory, config_files, shape, spacing, axes, flips, dtype, features, batch, size, symmetric, overlays
):
    """Any shapes, voxel sizes, orientations, types, channels and batches: the loss and all gradients are finite."""
    folder = tmp_path_factory.mktemp("scans")
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[list(axes)] * np.asarray(spacing) * np.where(flips, -1, 1)
    for subject in range(3):
        rng = np.random.default_rng(subject)
        volume = rng.integers(0, 200, [n + subject for n in shape]).astype(dtype)
        nib.save(nib.Nifti1Image(volume, affine), folder / f"{subject}.nii.gz")
    parser = ConfigParser()
    parser.read_config(config_files(*overlays))
    chosen = {"dataset_dir": str(folder), "output_dir": str(folder / "run"), "num_workers": 0, "batch_size": batch}
    chosen |= {"features": features, "spatial_size": list(size), "symmetric": symmetric, "pixdim": [0.4, 0.4, 0.4]}
    parser.update(chosen)
    network, loss, loader = (parser.get_parsed_content(name) for name in ("network", "loss", "train#dataloader"))
    pair = next(iter(loader))
    assert pair["image"].shape == (batch, 1, *size)
    assert -1e-5 < pair["image"].min() <= pair["image"].max() < 1 + 1e-5
    value = loss(network.train()(pair["image"], pair["moving"]), pair["label"])["loss"]
    value.backward()
    assert value.isfinite()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in network.parameters())


class TestHostileFiles:
    @given(path=st.text(min_size=1).map(lambda text: "/data/" + text))
    def test_names_of_scans_stay_names(self, path):
        """What results are called after is one name, whatever a data set calls its files: it cannot lead elsewhere."""
        name = scan_name(path)
        assert "/" not in name
        assert Path(f"{name}_to_{name}").name == f"{name}_to_{name}"

    def test_a_list_cannot_run_code_or_write_elsewhere(self, cohort, tmp_path, pretrain):
        """Expressions and ways out of the folder in dataset.json are text; nothing appears beside the output folder."""
        inner = tmp_path / "inner"
        shutil.copytree(cohort, inner / "scans")
        listed = json.loads((inner / "scans" / "dataset.json").read_text())["training"]
        trace = tmp_path / "trace"
        for number, item in enumerate(listed):
            item["image"] = f"../scans/imagesTr/subject_{number}.nii.gz"
            item["site"] = f"$__import__('os').mkdir('{trace}')"
            item["subject"] = f"../../../{number}"
        description = {"training": listed, "name": f"$__import__('os').mkdir('{trace}')", "_target_": "os.mkdir"}
        (inner / "scans" / "dataset.json").write_text(json.dumps(description))
        before = {path for path in tmp_path.rglob("*")}
        pretrain(inner / "scans", inner / "out", epochs=1, subject_key="subject", picture_interval=1)
        made = {path for path in tmp_path.rglob("*")} - before
        assert all(path.is_relative_to(inner / "out") for path in made)
        assert not trace.exists()
