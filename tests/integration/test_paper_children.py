# SPDX-License-Identifier: Apache-2.0
"""The children for the paper's data sets, on look-alikes of these: prepare, train, evaluate, infer, as a user would."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import itk
import nibabel as nib
import numpy as np
import pytest
from child.modules import write_scripts
from lookalikes import BRAIN_CODES, HEART_CODES, write_brain, write_coronary, write_covid, write_heart
from scripts.data import split_cases
from support import run_bundle

REPOSITORY = Path(__file__).resolve().parents[2]
TINY = {"features": [4, 8], "epochs": 1, "epoch_length": 2, "mode": "scratch"}
PATIENTS = {
    "heart_ct_segmentation": (20, (15, 5, 0)),
    "coronary_ct_segmentation": (40, (15, 5, 20)),
    "brain28_mr_segmentation": (103, (40, 20, 43)),
    "covid_ct_classification": (2000, (1000, 400, 600)),
}
"""Labelled scans in the data set, and the paper's split; the heart's 40 test scans have no labels."""


@pytest.fixture
def child(tmp_path):
    """A copy of a committed child elsewhere, and the command typed in it, without this repository on the path."""

    class Child:
        def __init__(self, name):
            self.folder = tmp_path / name
            ignored = shutil.ignore_patterns("models", "__pycache__", "runs")
            shutil.copytree(REPOSITORY / "downstream" / name, self.folder, ignore=ignored)
            write_scripts(self.folder, whole=True)

        def run(self, config, **settings):
            return run_bundle(self.folder, config, **settings)

        def succeed(self, config, **settings):
            done = self.run(config, **settings)
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout

    return Child


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def segmented(child, data, tmp_path, image, **tiny):
    """Train and evaluate on a data set, segment a scan: structures measured, codes written, and the label map."""
    tiny = {"features": TINY["features"], **tiny}
    child.succeed("train", dataset_dir=data, output_dir=tmp_path / "run", **{**TINY, **tiny})
    tiny["model"] = tmp_path / "run" / "model.pt"
    child.succeed("evaluate", dataset_dir=data, output_dir=tmp_path / "scores", **tiny)
    child.succeed("inference", image=image, output_dir=tmp_path / "predicted", **tiny)
    (path,) = (tmp_path / "predicted").glob("*.nii.gz")
    written = nib.load(path)
    structures = rows(tmp_path / "scores" / "dice_raw.csv")[0].keys() - {"filename", "mean"}
    return structures, set(np.unique(np.asarray(written.dataobj)).tolist()), written


def test_heart(child, tmp_path):
    """Prepared by two processes; a scan without label is segmented in its own geometry, with the data set's codes."""
    heart, source, data = child("heart_ct_segmentation"), write_heart(tmp_path / "download"), tmp_path / "data"
    assert "8 prepared scans" in heart.succeed("prepare", source_dir=source, dataset_dir=data)
    image = source / "ct_test" / "ct_test_2002_image.nii.gz"
    tiny = {"pixdim": [5, 5, 5], "patch_size": [16, 16, 16]}
    structures, codes, written = segmented(heart, data, tmp_path, image, **tiny)
    assert len(structures) == 7
    assert codes <= {0, *HEART_CODES}
    assert len(codes) > 1
    scan = nib.load(image)
    assert written.shape == scan.shape
    assert np.allclose(written.affine, scan.affine)


def test_coronary_arteries(child, tmp_path):
    """NRRD in; the label map lies where the scan does."""
    coronary, data = child("coronary_ct_segmentation"), write_coronary(tmp_path / "download")
    image = data / "Normal" / "CTCA" / "Normal_2.nrrd"
    tiny = {"pixdim": [1.5, 1.5, 1.5], "patch_size": [16, 16, 16]}
    structures, codes, written = segmented(coronary, data, tmp_path, image, **tiny)
    assert structures == {"coronary arteries"}
    assert codes <= {0, 1}
    scan = itk.imread(str(image))
    assert written.shape == tuple(itk.size(scan))
    assert np.allclose(nib.affines.voxel_sizes(written.affine), list(scan.GetSpacing()))
    assert np.allclose(written.affine[:3, 3] * [-1, -1, 1], list(scan.GetOrigin()), atol=1e-3)


def test_brain(child, tmp_path):
    """28 structures; the other codes of the files are background. Label maps are read by nibabel as it is."""
    brain, data = child("brain28_mr_segmentation"), write_brain(tmp_path / "download")
    image = data / "SchizBull_2008" / "SS" / "SS_085" / "SS_085_procimg.nii.gz"
    tiny = {"pixdim": [5, 5, 5], "patch_size": [16, 16, 16]}
    structures, codes, written = segmented(brain, data, tmp_path, image, **tiny)
    assert len(structures) == 28
    assert codes <= {0, *BRAIN_CODES}
    assert len(codes) > 1
    assert nib.aff2axcodes(written.affine) == ("L", "S", "A")


def test_covid(child, tmp_path):
    covid, source, data = child("covid_ct_classification"), write_covid(tmp_path / "download"), tmp_path / "data"
    assert "12 prepared scans" in covid.succeed("prepare", source_dir=source, dataset_dir=data, workers=1)
    tiny = {"features": TINY["features"], "pixdim": [16, 16, 16], "spatial_size": [16, 16, 16]}
    covid.succeed("train", dataset_dir=data, output_dir=tmp_path / "run", **{**TINY, **tiny})
    tiny["model"] = tmp_path / "run" / "model.pt"
    covid.succeed("evaluate", dataset_dir=data, output_dir=tmp_path / "scores", **tiny)
    assert (tmp_path / "scores").is_dir()
    covid.succeed("inference", dataset_dir=data, output_dir=tmp_path / "predicted", **tiny)
    predictions = rows(tmp_path / "predicted" / "predictions.csv")
    assert len(predictions) == 12
    assert {Path(row["image"]).suffix for row in predictions} == {".mha"}


def test_mistakes_get_one_line(child, cohort, tmp_path):
    """Another folder than the download; a folder of scans in no layout is predicted when asked for."""
    heart = child("heart_ct_segmentation")
    done = heart.run("prepare", source_dir=cohort, dataset_dir=tmp_path / "data")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    message = done.stderr.strip().splitlines()[-1]
    assert str(cohort) in message
    assert "ct_train/ct_train_1001_image.nii.gz with its label ct_train/ct_train_1001_label.nii.gz" in message
    settings = {"features": [4, 8], "pixdim": [2, 2, 2], "patch_size": [16, 16, 16], "load_pretrain": False}
    where = {"dataset_dir": cohort / "imagesTr", "output_dir": tmp_path / "predicted"}
    assert "--layout" in heart.run("inference", **where, **settings).stderr
    heart.succeed("inference", **where, **settings, layout="{}")
    assert len(list((tmp_path / "predicted").rglob("*.nii.gz"))) == 6


@pytest.mark.parametrize("name", PATIENTS)
def test_the_papers_split(name):
    """The fractions of paper.json give the paper's numbers of scans."""
    paper = json.loads((REPOSITORY / "downstream" / name / "configs" / "paper.json").read_text(encoding="utf-8"))
    total, expected = PATIENTS[name]
    classification = name.endswith("classification")
    cases = [{"subject": f"{n:04d}", "classes": [1 + n % 2] if classification else [1]} for n in range(total)]
    fractions = {key: paper[key] for key in ("validation_fraction", "test_fraction")}
    parts = split_cases(cases, ["a", "b"][: 1 + classification], **fractions, stratify=classification)
    assert tuple(len(parts[part]) for part in ("train", "validation", "test")) == expected
    assert paper["epochs"] * paper["epoch_length"] == 40_000
