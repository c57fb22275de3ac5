# SPDX-License-Identifier: Apache-2.0

"""Pre-training as a whole: it learns, it is reproducible."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
import torch
from kill_and_resume import same
from support import load


class TestRun:
    def test_files_and_measures(self, cohort, tmp_path, pretrain, capsys):
        """Best and last checkpoints, history, curves, pictures, settings; the summary names them."""
        rows = pretrain(cohort, tmp_path, picture_interval=2, epochs=2)
        names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
        fixed = {"checkpoint.pt", "model.pt", "history.csv", "settings.json", "curves.png", "pictures/epoch_0002.png"}
        fixed |= {"checkpoint_0001.pt", "checkpoint_0002.pt"}
        kept = {"scans.csv"}
        assert fixed | kept <= names
        assert all("tensorboard" in name for name in names - fixed - kept)
        assert [row["epoch"] for row in rows] == [1, 2]
        measures = {"ncc_before", "ncc_after", "dice_before", "dice_after", "folded_percentage"}
        assert measures <= set(rows[0])
        for row in rows:
            terms = row["places"] + 0.5 * row["known_map"] + 5 * row["matching"] + 1.5 * row["smoothness"]
            terms += row["restoration"] + 0.3 * row["redundancy"]
            assert np.isclose(row["train_loss"], terms, atol=1e-5)
        shown = capsys.readouterr().out
        assert "Pre-training ended after epoch 2" in shown
        assert all(str(tmp_path / name) in shown for name in fixed)
        state = load(tmp_path / "checkpoint.pt")
        assert state["epoch"] == 2
        assert same(list(state["network"]), list(load(tmp_path / "model.pt")))

    def test_masked_autoencoding_and_the_default_after_it(self, cohort, tmp_path, pretrain):
        """It learns by what it hides alone, matches nothing meanwhile, and is a start for a whole network."""
        rows = pretrain(cohort, tmp_path / "masked", overlays=("masked_autoencoding",), epochs=2)
        assert {"restoration", "redundancy"} == set(rows[0]) & {"restoration", "redundancy", "places", "matching"}
        assert rows[0]["train_loss"] == pytest.approx(rows[0]["restoration"])
        start = tmp_path / "masked" / "checkpoint.pt"
        weights = load(start)["network"]
        pretrain(cohort, tmp_path / "after", pretrained=str(start), epochs=1, epoch_length=1, learning_rate=0.0)
        after = load(tmp_path / "after" / "checkpoint.pt")["network"]
        assert all(torch.equal(value, after[name]) for name, value in weights.items())

    def test_learning_rate_of_an_epoch_is_the_one_it_was_trained_with(self, cohort, tmp_path, pretrain):
        rows = pretrain(cohort, tmp_path, epochs=3, epoch_length=1, learning_rate=0.004)
        assert np.allclose([row["learning_rate"] for row in rows], [0.004, 0.003, 0.001])

    def test_model_is_that_of_the_best_validation(self, cohort, tmp_path, pretrain):
        """A later, worse epoch does not replace it: the decay of the second one takes all weights away."""
        schedule = {
            "_target_": "torch.optim.lr_scheduler.LambdaLR",
            "optimizer": "@optimizer",
            "lr_lambda": "$lambda epoch: [0, 1, 1][epoch]",
        }
        optimizer = {"_target_": "torch.optim.SGD", "params": "$@network.parameters()", "lr": 1e-8, "weight_decay": 1e8}
        rows = pretrain(cohort, tmp_path, epochs=2, lr_scheduler=schedule, optimizer=optimizer)
        assert rows[1]["ncc_after"] < rows[0]["ncc_after"]
        model, state = load(tmp_path / "model.pt"), load(tmp_path / "checkpoint.pt")
        assert state["best"] == [pytest.approx(rows[0]["ncc_after"]), 1]
        assert not same(model, state["network"])

    def test_labels_play_no_part_in_training(self, cohort, tmp_path, make_cohort, pretrain):
        """The same scans without labels give the same losses and weights, but no Dice."""
        labelled = pretrain(cohort, tmp_path / "labelled", epochs=1)
        bare = make_cohort(tmp_path / "bare", description=False)
        plain = pretrain(bare, tmp_path / "plain", epochs=1)
        assert "dice_after" not in plain[0]
        assert labelled[0] == {**plain[0], **{name: labelled[0][name] for name in ("dice_before", "dice_after")}}
        assert same(load(tmp_path / "labelled" / "model.pt"), load(tmp_path / "plain" / "model.pt"))

    def test_disk_cache_changes_nothing_and_serves_the_next_run(self, cohort, tmp_path, pretrain):
        cache = tmp_path / "cache"
        expected = pretrain(cohort, tmp_path / "memory", epochs=1)
        first = pretrain(cohort, tmp_path / "first", epochs=1, cache_dir=str(cache))
        files = {path: path.stat().st_mtime_ns for path in cache.rglob("*.pt")}
        second = pretrain(cohort, tmp_path / "second", epochs=1, cache_dir=str(cache))
        assert expected == first == second
        assert files
        assert files == {path: path.stat().st_mtime_ns for path in cache.rglob("*.pt")}

    def test_scans_of_any_grid_are_trained_on_together(self, tmp_path, anatomy, pretrain):
        """Mixed orientations, spacings and sizes are handled, not refused."""
        for subject in range(5):
            volume = anatomy(subject)[: 24 - 3 * subject, ::-1].transpose(np.roll(range(3), subject))
            affine = np.diag([1 + 0.4 * subject, -1.0, 2.0 - 0.3 * subject, 1.0])
            nib.save(nib.Nifti1Image(volume, affine), tmp_path / f"{subject}.nii")
        assert len(pretrain(tmp_path, tmp_path / "out", epochs=1)) == 1


class TestReproducibility:
    def test_one_seed_one_course_with_any_number_of_workers(self, cohort, tmp_path, pretrain):
        rows = [pretrain(cohort, tmp_path / str(n), num_workers=n, batch_size=2) for n in (0, 1, 2)]
        assert rows[0] == rows[1] == rows[2]
        weights = [load(tmp_path / str(n) / "checkpoint.pt")["network"] for n in (0, 1, 2)]
        assert same(weights[0], weights[1])
        assert same(weights[0], weights[2])

    def test_another_seed_another_course(self, cohort, tmp_path, pretrain):
        losses = [pretrain(cohort, tmp_path / str(n), seed=n, epochs=1)[0]["train_loss"] for n in (0, 1)]
        assert losses[0] != losses[1]


def test_phantoms_are_matched(tmp_path, repository, pretrain):
    """Trained on the built-in phantoms, the network matches held-back ones clearly better than at first."""
    subprocess.run(
        [sys.executable, repository / "tools" / "make_phantoms.py", tmp_path / "phantoms"]
        + ["--subjects", "20", "--seed", "0", "--spacing", "8"],
        check=True,
        capture_output=True,
    )
    rows = pretrain(
        tmp_path / "phantoms",
        tmp_path / "out",
        pixdim=[11.0, 11.0, 11.0],
        spatial_size=[28, 22, 22],
        intensity="window",
        features=[8, 16, 32],
        seed=1,
        smoothness_weight=0.5,
        learning_rate=0.002,
        epochs=12,
        epoch_length=25,
        val_interval=12,
        validation_fraction=0.4,
        validation_pairs=16,
    )
    last = rows[-1]
    assert last["restoration"] < rows[0]["restoration"] / 2
    assert last["ncc_after"] > last["ncc_before"] + 0.15
    assert last["dice_after"] > last["dice_before"] + 0.03
    assert last["folded_percentage"] < 5


def test_hippocampus(tmp_path, shared_data, workflow):
    """Real MR: the two scans of one subject (files 2k - 1 and 2k) are never matched, nor split between the sides."""
    source, scans = shared_data / "hippocampus", tmp_path / "scans"
    entries = json.loads((source / "dataset.json").read_text())["training"][:16]
    for entry in entries:
        for name in entry.values():
            (scans / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / name, scans / name)
    (scans / "dataset.json").write_text(json.dumps({"training": entries}))
    made = workflow(
        scans,
        tmp_path / "out",
        pixdim=[1.5, 1.5, 1.5],
        spatial_size=[24, 36, 24],
        subject_key=r"$lambda name: (int(name[-10:-7]) + 1) // 2",
        validation_fraction=0.25,
    )
    made.initialize()
    made.run()
    parser = made.parser
    training, held = (parser.get_parsed_content(name) for name in ("training_scans", "validation_scans"))
    subjects = [{scan["subject"] for scan in side} for side in (training, held)]
    assert not subjects[0] & subjects[1]
    assert len(training) > len(subjects[0])  # there are subjects with two scans
    dataset = parser.get_parsed_content("train#dataset")
    for draw in range(200):
        fixed, moving, _ = dataset.indices(draw)
        if fixed == moving:  # two views of one scan
            continue
        numbers = [int(re.findall(r"\d+", training[index]["image"])[-1]) for index in (fixed, moving)]
        assert (numbers[0] + 1) // 2 != (numbers[1] + 1) // 2
    image = dataset[0]["image"]
    assert image.shape == (1, 24, 36, 24)
    assert 0 <= image.min() < 0.2 < image.max() <= 1
    with (tmp_path / "out" / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    assert all(np.isfinite(float(value)) for row in rows for value in row.values())
    assert float(rows[0]["dice_before"]) > 0
