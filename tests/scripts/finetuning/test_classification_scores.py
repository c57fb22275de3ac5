# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from scripts.finetuning import ClassificationScores, MeanAUC, Predictions, by_subject, class_aucs, mean_auc, scores
from sklearn.metrics import roc_auc_score
from torch.nn.functional import one_hot

CLASSES = ["N", "HYP", "HF"]


def made_up(number=60, classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(number) % classes
    logits = torch.randn(number, classes, generator=generator) + one_hot(labels, classes)
    return logits.softmax(1), labels


@pytest.mark.parametrize("classes", [2, 3])
def test_the_auc_is_that_of_scikit_learn(classes):
    probabilities, labels = made_up(classes=classes)
    column = probabilities[:, 1] if classes == 2 else probabilities
    expected = roc_auc_score(labels, column, multi_class="ovr", average="macro")
    assert mean_auc(probabilities, one_hot(labels, classes)) == pytest.approx(expected)


def test_a_class_without_example_is_left_out_of_the_mean(recwarn):
    probabilities, labels = made_up()
    seen = labels != 2
    hot = one_hot(labels, 3)[seen]
    values = class_aucs(probabilities[seen], hot)
    assert math.isnan(values[2])
    assert mean_auc(probabilities[seen], hot) == pytest.approx((values[0] + values[1]) / 2)
    assert math.isnan(mean_auc(probabilities[labels == 0], one_hot(labels, 3)[labels == 0]))
    assert not recwarn.list


def test_the_metric_accumulates_batches():
    probabilities, labels = made_up()
    metric = MeanAUC()
    for part in range(0, 60, 7):
        metric(list(probabilities[part : part + 7]), list(one_hot(labels, 3)[part : part + 7]))
    assert metric.aggregate() == pytest.approx(mean_auc(probabilities, one_hot(labels, 3)))
    metric.reset()
    metric([torch.tensor([0.9, 0.1]), torch.tensor([0.2, 0.8])], [torch.tensor([1, 0]), torch.tensor([0, 1])])
    assert metric.aggregate() == 1


def test_scores_name_the_classes():
    probabilities = np.array([[0.8, 0.1, 0.1], [0.5, 0.4, 0.1], [0.1, 0.7, 0.2], [0.6, 0.1, 0.3]])
    found = scores(probabilities, np.array([0, 1, 1, 0]), CLASSES)
    assert found["number"] == 4
    assert found["accuracy"] == 0.75
    assert found["confusion"]["HYP"] == {"N": 1, "HYP": 1, "HF": 0}
    assert found["auc_by_class"] == {"N": 1.0, "HYP": 1.0, "HF": None}
    assert found["auc"] == 1
    assert scores(probabilities, np.zeros(4, int), CLASSES)["auc"] is None


def test_scans_of_a_subject_are_averaged():
    cases = [
        {"subject": "a", "label": 1, "probabilities": np.array([0.2, 0.8])},
        {"subject": "b", "label": 0, "probabilities": np.array([0.9, 0.1])},
        {"subject": "a", "label": 1, "probabilities": np.array([0.6, 0.4])},
    ]
    first, second = by_subject(cases)
    assert (first["subject"], first["scans"], first["label"]) == ("a", 2, 1)
    assert first["probabilities"] == pytest.approx([0.4, 0.6])
    assert (second["subject"], second["scans"]) == ("b", 1)


def evaluate(handler, cases):
    """Run a handler on (name, subject, label, probabilities)."""
    images = [
        MetaTensor(torch.linspace(0, 1, 512).view(1, 8, 8, 8), meta={"filename_or_obj": f"/data/{case[0]}.nii.gz"})
        for case in cases
    ]

    def step(engine, index):
        _, subject, label, probabilities = cases[index]
        engine.state.batch = [{"image": images[index], "subject": subject}]
        hot = one_hot(torch.tensor(label), len(probabilities))
        return [{"image": images[index], "pred": torch.tensor(probabilities), "label": hot}]

    engine = Engine(step)
    handler.attach(engine)
    engine.run(range(len(cases)))


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


CASES = [
    ("a_1", "a", 0, [0.7, 0.2, 0.1]),
    ("a_2", "a", 0, [0.3, 0.4, 0.3]),
    ("b_1", "b", 1, [0.1, 0.8, 0.1]),
    ("c_1", "c", 2, [0.6, 0.3, 0.1]),
]


def test_files_of_an_evaluation(tmp_path, no_figure_is_left_open, capsys):
    evaluate(ClassificationScores(str(tmp_path), CLASSES, (1, 1, 2)), CASES)
    rows = rows_of(tmp_path / "scores.csv")
    assert [row["image"] for row in rows] == [f"/data/{case[0]}.nii.gz" for case in CASES]
    assert [row["subject"] for row in rows] == ["a", "a", "b", "c"]
    assert [row["true"] for row in rows] == ["N", "N", "HYP", "HF"]
    assert [row["predicted"] for row in rows] == ["N", "HYP", "HYP", "N"]
    assert [float(rows[0][f"probability of {name}"]) for name in CLASSES] == pytest.approx([0.7, 0.2, 0.1])
    subjects = rows_of(tmp_path / "subjects.csv")
    assert [(row["subject"], row["scans"], row["predicted"]) for row in subjects[:2]] == [
        ("a", "2", "N"),
        ("b", "1", "HYP"),
    ]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["scans"]["accuracy"] == 0.5
    assert summary["subjects"]["accuracy"] == pytest.approx(2 / 3, abs=1e-4)
    assert summary["scans"]["confusion"]["N"] == {"N": 1, "HYP": 1, "HF": 0}
    assert "3 subjects: AUC" in capsys.readouterr().out
    for name in ("confusion", "worst", "median"):
        assert (tmp_path / f"{name}.png").stat().st_size > 5_000


def test_predictions_need_no_label(tmp_path):
    evaluate(Predictions(str(tmp_path / "new"), CLASSES), CASES[:2])
    rows = rows_of(tmp_path / "new" / "predictions.csv")
    assert [row["predicted"] for row in rows] == ["N", "HYP"]
    assert "true" not in rows[0]
    assert float(rows[1]["probability of HF"]) == pytest.approx(0.3)
