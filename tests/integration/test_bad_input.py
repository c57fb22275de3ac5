# SPDX-License-Identifier: Apache-2.0

"""Mistakes of the user end in one line that names the culprit and the remedy, and nothing is lost."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from support import run_bundle


def last_line(done) -> str:
    """The message of a command that must have failed without a traceback, whatever was shown before it."""
    assert done.returncode not in (0, -9), done.stdout
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    messages = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(messages) == 1, done.stderr
    return messages[0]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class TestCommand:
    """As the user sees it: a process of its own."""

    def test_missing_dataset_dir(self, tmp_path, run_bundle):
        done = run_bundle(dataset_dir=tmp_path / "none", output_dir=tmp_path / "out")
        assert last_line(done) == (
            f"error: dataset_dir {tmp_path / 'none'} does not exist or is not a folder: pass --dataset_dir "
            "<folder of scans>"
        )

    def test_bad_scans_are_listed_together(self, tmp_path, make_cohort, run_bundle):
        """One line a file, before anything is trained."""
        scans = make_cohort(tmp_path / "scans", description=False)
        files = sorted(scans.rglob("*.nii.gz"))
        files[1].write_bytes(files[1].read_bytes()[:900])
        nib.save(nib.Nifti1Image(np.zeros((9, 9, 9)), np.eye(4)), files[4])
        done = run_bundle(dataset_dir=scans, output_dir=tmp_path / "out")
        message = last_line(done)
        assert message == "error: 2 of 6 scans cannot be used (--skip_bad True leaves them out):"
        after = done.stderr.splitlines()[done.stderr.splitlines().index(message) + 1 :]
        assert [line.split()[0] for line in after] == [str(files[1]), str(files[4])]
        assert not (tmp_path / "out" / "checkpoint.pt").exists()

    def test_broken_loss_keeps_the_last_good_checkpoint(self, cohort, tmp_path, run_bundle):
        """The second epoch learns at 1e30; its line is not glued to the progress bar."""
        schedule = (
            "{'_target_': 'torch.optim.lr_scheduler.LambdaLR', 'optimizer': '@optimizer', "
            "'lr_lambda': '$lambda epoch: 1e33 if epoch else 1'}"
        )
        done = run_bundle(dataset_dir=cohort, output_dir=tmp_path, epochs=5, lr_scheduler=schedule)
        message = last_line(done)
        assert "the loss is not finite at epoch 2, iteration 5" in message
        assert f"the last good checkpoint is {tmp_path / 'checkpoint.pt'}: lower --learning_rate" in message
        state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
        assert state["epoch"] == 1
        assert all(weight.isfinite().all() for weight in state["network"].values())

    def test_unknown_network_option(self, cohort, tmp_path, run_bundle):
        done = run_bundle(dataset_dir=cohort, output_dir=tmp_path, **{"network_def#backbone#depth": 5})
        assert "scripts.networks.UNetBackbone has no option 'depth': correct the name" in last_line(done)


def test_a_bundle_in_a_folder_named_by_a_number(cohort, tmp_path):
    """Python Fire takes 2024_06 for 202406, before any code of the bundle runs."""
    (tmp_path / "2024_06").symlink_to(Path(__file__).parents[2] / "bundle")
    done = run_bundle(Path("2024_06"), "train", cwd=tmp_path, bundle_root="2024_06", dataset_dir=cohort, dry_run=True)
    assert done.returncode == 0, done.stderr
    assert "6 scans of 6 subjects would be used" in done.stdout


def test_inference_has_no_setting_for_the_axes_of_its_network(cohort, tmp_path, repository):
    """The networks here are of three axes; another number of them is not passed over."""
    scans = {name: cohort / "imagesTr" / f"subject_{n}.nii.gz" for n, name in enumerate(("fixed", "moving"))}
    done = run_bundle(repository / "bundle", "inference", **scans, output_dir=tmp_path / "out", spatial_dims=2)
    assert last_line(done) == "error: --spatial_dims is no setting of inference.json: did you mean --spatial_size?"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("make", [lambda folder: None, lambda folder: folder.mkdir()], ids=["missing", "empty"])
def test_no_scans(tmp_path, refusal, make):
    make(tmp_path / "scans")
    message = refusal(tmp_path / "scans", tmp_path / "out")
    assert f"dataset_dir {tmp_path / 'scans'}" in message
    assert "\n" not in message


def test_single_subject(tmp_path, make_cohort, refusal):
    """Of one scan, or of two scans of one subject."""
    one = make_cohort(tmp_path / "one", subjects=1)
    assert "1 usable scan(s) of 1 subject(s); 2 subjects or more are needed" in refusal(one, tmp_path / "out")
    two = make_cohort(tmp_path / "two", subjects=2)
    assert "2 usable scan(s) of 1 subject(s)" in refusal(two, tmp_path / "out", subject_key="subject")


def test_skip_bad_goes_on_without(tmp_path, make_cohort, pretrain):
    """The same as if the bad scan had never been there."""
    scans = make_cohort(tmp_path / "scans", subjects=6, description=False)
    bad = scans / "imagesTr" / "subject_5.nii.gz"
    bad.write_bytes(b"")
    skipped = pretrain(scans, tmp_path / "skipped", epochs=1, skip_bad=True)
    bad.unlink()
    assert skipped == pretrain(scans, tmp_path / "expected", epochs=1)


@pytest.mark.parametrize("place", ["a_file/out", "/proc/out"])
def test_output_that_cannot_be_written(tmp_path, cohort, refusal, place):
    """Said before the scans are read."""
    if place.startswith("/proc") and not os.path.isdir("/proc"):
        pytest.skip("no /proc here")
    (tmp_path / "a_file").write_text("keep")
    message = refusal(tmp_path / "no_scans_either", tmp_path / place)
    assert "cannot be written" in message
    assert message.endswith("pass another --output_dir")
    assert (tmp_path / "a_file").read_text() == "keep"


class TestRunThatIsThere:
    @pytest.fixture
    def finished(self, cohort, tmp_path, pretrain):
        pretrain(cohort, tmp_path, epochs=1, epoch_length=1)
        return tmp_path

    def test_is_not_overwritten(self, cohort, finished, refusal):
        before = contents(finished)
        assert "already holds a run: pass --resume True" in refusal(cohort, finished)
        assert contents(finished) == before

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"features": [4, 8, 16]}, "made with features [4, 8], not [4, 8, 16]"),
            (
                {"network_def#matching_head#local_matching#widths": [32, 32, 8]},
                "made with network_def#matching_head#local_matching#widths [32, 32, 16], not [32, 32, 8]: pass --",
            ),
        ],
    )
    def test_is_not_resumed_with_another_network(self, cohort, finished, refusal, change, message):
        before = contents(finished)
        assert message in refusal(cohort, finished, epochs=2, resume=True, **change)
        after = contents(finished)
        assert {name: after[name] for name in before} == before

    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda path: path.write_bytes(path.read_bytes()[:5000]), "is not a readable checkpoint"),
            (lambda path: torch.save({"weight": torch.zeros(1)}, path), "is not a checkpoint of this training"),
            (lambda path: torch.save([1, 2], path), "is not a checkpoint of this training"),
        ],
        ids=["cut short", "other content", "no dictionary"],
    )
    def test_damaged_checkpoint(self, cohort, finished, refusal, spoil, message):
        spoil(finished / "checkpoint.pt")
        before = contents(finished)
        assert message in refusal(cohort, finished, epochs=2, resume=True)
        after = contents(finished)
        assert {name: after[name] for name in before} == before


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"spatial_size": [24, 24]}, "spatial_size must be 3 whole numbers of 1 or more, not [24, 24]"),
        ({"spatial_size": [24, 0, 24]}, "spatial_size must be 3 whole numbers"),
        ({"pixdim": 2}, "pixdim must be 3 numbers"),
        ({"pixdim": [1.0, 0.0, 1.0]}, "pixdim must be 3 numbers"),
        ({"features": 8}, "features must be a list of whole numbers"),
        ({"features": [8]}, "features needs two or more levels"),
        ({"epochs": 0}, "epochs must be a whole number of 1 or more, not 0"),
        ({"epoch_length": "many"}, "epoch_length must be a whole number"),
        ({"batch_size": 0}, "batch_size must be a whole number"),
        ({"val_interval": 0}, "val_interval must be a whole number"),
        ({"picture_interval": 0}, "picture_interval must be a whole number"),
        ({"validation_pairs": 0}, "validation_pairs must be a whole number"),
        ({"num_workers": -1}, "num_workers must be a whole number of 0 or more"),
        ({"seed": -1}, "seed must be a whole number of 0 or more"),
        ({"learning_rate": "fast"}, "learning_rate must be a number"),
        ({"restoration_weight": -1}, "restoration_weight must be a number of 0 or more"),
        ({"validation_fraction": 1.5}, "validation_fraction must lie between 0 and 1"),
        ({"intensity": "hounsfield"}, "intensity is 'percentiles' (MR, or any) or 'window' (CT)"),
        ({"intensity": "window", "window": [100, 0]}, "window [100, 0] must be [lower, upper]"),
        ({"percentiles": [5]}, "percentiles must be 2 numbers"),
        ({"corrupted": "both"}, "corrupted is 'moving' or 'fixed', not 'both'"),
        ({"subject_key": "("}, "subject_key '(' is no valid regular expression"),
        ({"subject_key": "patient_[0-9]+"}, "subject_key 'patient_[0-9]+' is neither a column of dataset.json nor"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_setting_of_no_use(cohort, tmp_path, refusal, given, message):
    found = refusal(cohort, tmp_path, **given)
    assert message in found
    assert "\n" not in found
