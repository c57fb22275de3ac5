# SPDX-License-Identifier: Apache-2.0

"""Probes of whole scans from a table: a target that the features hold is told, noise is not; bad tables get a line."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scripts.errors import InputError
from scripts.probing import ScanLevelProbe, cross_validated
from torch import nn


class Mean(nn.Module):
    """f^g is the image's brightness, or noise."""

    def __init__(self, noise: bool) -> None:
        super().__init__()
        self.weight, self.noise = nn.Parameter(torch.zeros(1)), noise

    def forward(self, image):
        seen = (
            torch.randn(1, 3, 1, 1, 1) if self.noise else image.mean(dim=(2, 3, 4), keepdim=True).repeat(1, 3, 1, 1, 1)
        )
        return seen, image


ARMS = {"weights": Mean(False), "random": Mean(True)}


@pytest.fixture
def study(tmp_path):
    """Forty patients of two scans each; the brightness is their age, the old ones are ill."""
    lines = ["participant_id\tage\tgroup\tsite\tn"]
    scans = []
    for number in range(40):
        age = 20 + number
        lines.append(f"sub-{number:02d}\t{age}\t{'ill' if age > 39 else 'well'}\t{'AB'[number % 2]}\t{number % 3}")
        scans += [{"image": f"sub-{number:02d}/scan{k}.nii.gz", "subject": f"x{number}{k}"} for k in range(2)]
    (tmp_path / "participants.tsv").write_text("\n".join([*lines, "sub-99\tn/a\tn/a\tA\t0"]) + "\n")
    return tmp_path, scans


def brightness(scan):
    number = int(scan["image"][4:6])
    return {"image": torch.full((1, 4, 4, 4), number / 40)}


def probe(study, **options):
    folder, scans = study
    torch.manual_seed(0)
    made = ScanLevelProbe("participants.tsv", id="participant_id", resamples=100, **options)
    return made(ARMS, scans, str(folder), brightness)


def test_a_class_is_told_with_its_gain_and_gap(study):
    found = probe(study, target="group", group="site")
    assert found["task"] == "classification"
    assert (found["scans"], found["patients"]) == (80, 40)
    assert found["measures"]["weights"]["auroc"] > 0.95
    assert found["measures"]["weights"]["f1"] > 0.8
    assert found["measures"]["random"]["auroc"] < 0.75
    assert found["gain"]["low"] > 0
    groups = found["groups"]["weights"]
    assert set(groups["scores"]) == {"A", "B"}
    assert groups["gap"] == pytest.approx(max(groups["scores"].values()) - min(groups["scores"].values()))


def test_a_number_is_told(study):
    found = probe(study, target="age")
    assert found["task"] == "regression"
    assert found["measures"]["weights"]["r2"] > 0.9
    assert found["measures"]["weights"]["mae"] < 3
    assert found["measures"]["random"]["r2"] < 0.2


@pytest.mark.parametrize("none", ["NA", "NaN", "nan"])
@pytest.mark.parametrize("target", ["age", "group"])
def test_patients_without_a_value_are_left_out(study, capsys, none, target):
    """As R and pandas write it; before, it was a class of its own, or no number."""
    path = study[0] / "participants.tsv"
    path.write_text(path.read_text().replace("sub-05\t25\twell", f"sub-05\t{none}\t{none}"))
    assert probe(study, target=target)["patients"] == 39
    assert "2 of 80 scans have no row with a value" in capsys.readouterr().out


def test_few_numbers_are_classes_unless_told(study):
    assert probe(study, target="n")["task"] == "classification"
    assert probe(study, target="n", task="regression")["task"] == "regression"


def test_scans_of_a_patient_are_held_back_together():
    """Features that know the patient alone: told where his other scan is learned from, and not otherwise."""
    rng = np.random.default_rng(0)
    owners = np.repeat(np.arange(30), 4)
    features, targets = rng.normal(size=(30, 20))[owners], rng.integers(0, 2, 30)[owners]
    known = cross_validated(features, targets, np.arange(120), "classification").argmax(axis=1) == targets
    unknown = cross_validated(features, targets, owners, "classification").argmax(axis=1) == targets
    assert known.mean() > 0.8
    assert unknown.mean() < 0.7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "weight"}, "has no column 'weight'"),
        ({"target": "age", "task": "classification"}, "needs two classes or more of 5 patients"),
        (
            {"target": "group", "task": "regression"},
            "column 'group': 'well' is no number: correct it, or pass --task class",
        ),
        ({"target": "group", "task": "ranking"}, "task is classification or regression"),
        ({"target": None}, "--table needs --id COLUMN"),
    ],
)
def test_what_cannot_be_told_gets_a_line(study, options, message):
    with pytest.raises(InputError, match=message):
        probe(study, **options)


def test_a_table_of_other_patients_is_refused(study):
    folder, scans = study
    others = [{**scan, "image": scan["image"].replace("sub-", "case"), "subject": "?"} for scan in scans]
    made = ScanLevelProbe("participants.tsv", id="participant_id", target="age")
    with pytest.raises(InputError, match="no scan is named by the column 'participant_id'"):
        made(ARMS, others, str(folder), brightness)


def rows(folder, table, names):
    (folder / "table.csv").write_text(table)
    scans = [{"image": str(folder / name), "subject": name} for name in names]
    made = ScanLevelProbe("table.csv", id="id", target="age")
    return [row["id"] for _, row in made.rows(scans, str(folder))]


def test_scans_get_the_row_of_their_own_name(tmp_path):
    """Not of a folder above the data set, nor of a part of a word; zeros that a spreadsheet drops are no other name."""
    folder = tmp_path / "1"
    folder.mkdir()
    assert rows(folder, "id,age\n1,50\n2,60\n", ["p/2.nii.gz", "p/001.nii.gz"]) == ["2", "1"]
    assert rows(folder, "id,age\n01,50\n1,60\n", ["p/01.nii.gz", "p/1.nii.gz"]) == ["01", "1"]
    assert rows(folder, "id,age\nM,50\nMüller,60\n", ["Mu\u0308ller.nii.gz"]) == ["Müller"]
    with pytest.raises(InputError, match="no scan is named"):
        rows(folder, "id,age\n1,50\nM,60\n", ["p/2.nii.gz", "Müller.nii.gz"])


def test_names_of_several_rows_are_refused_until_they_are_written_in_full(tmp_path):
    scans = ["p-03_run-1.nii.gz", "p-1_run-1.nii.gz"]
    with pytest.raises(InputError, match="has the names of 1 and 3: write the table's in full, as in the scans' paths"):
        rows(tmp_path, "id,age\n1,50\n3,60\n", scans)
    assert rows(tmp_path, "id,age\np-1,50\np-03,60\n", scans) == ["p-03", "p-1"]
    with pytest.raises(InputError, match="contradicting rows of p-1"):
        rows(tmp_path, "id,age\np-1,50\np-1,60\np-03,60\n", scans)


def test_ages_with_decimal_commas_are_no_classes(study):
    folder, _ = study
    table = folder / "participants.tsv"
    table.write_text("\n".join(line.replace("\tA", ",5\tA") for line in table.read_text().splitlines()))
    swapped = table.read_text().replace("\till", ",5\till").replace("\twell", ",5\twell")
    table.write_text(swapped)
    with pytest.raises(InputError, match="write decimals with a point"):
        probe(study, target="age")
    table.write_text(swapped.replace(",5", ".5"))
    assert probe(study, target="age")["task"] == "regression"
