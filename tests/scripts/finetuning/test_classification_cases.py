# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
from scripts.data import split_cases
from scripts.errors import InputError
from scripts.finetuning import classified_cases, read_table, sampling_weights
from support import write_nifti

CLASSES = [{"name": "healthy", "values": [0]}, {"name": "ill", "values": [1, 2]}]
TABLE = {"file": "table.csv", "id": "patient", "target": "grade"}
KEY = "p[0-9]+"
ROWS = ["p0,0,x", "p1,1,x", "p2,2,x", "p3,0,x"]


@pytest.fixture
def dataset(tmp_path):
    """Four patients of two scans each, and a way to write the table."""
    for patient in range(4):
        for phase in ("ED", "ES"):
            volume = np.random.default_rng(patient).random((6, 6, 6)).astype(np.float32)
            write_nifti(tmp_path / "scans" / f"p{patient}_{phase}.nii.gz", volume)

    def write(rows=ROWS, head="patient,grade,other", **arguments):
        (tmp_path / "table.csv").write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
        return classified_cases(str(tmp_path), **{"table": TABLE, "classes": CLASSES, "subject_key": KEY, **arguments})

    return write


def test_every_scan_gets_the_class_of_its_patient(dataset):
    cases = dataset()
    assert [(case["subject"], case["label"]) for case in cases[::2]] == [("p0", 0), ("p1", 1), ("p2", 1), ("p3", 0)]
    assert len(cases) == 8
    assert all(case["classes"] == [case["label"] + 1] for case in cases)


@pytest.mark.parametrize(
    ("head", "rows"),
    [
        ("grade;patient", ["0;p0", "1;p1", "2;p2", "0;p3"]),
        ("patient\tgrade", ["p0\t0.0", "p1\t1.0", "p2\t2.0", "p3\t0"]),
        ("\ufeffpatient, grade", ['"p0", 0', "p1 , 1", "p2, 2", "p3, 0", "p3, 0"]),
    ],
    ids=["semicolons", "tabs and decimals", "byte order mark, blanks, a row twice"],
)
def test_tables_as_spreadsheets_write_them(dataset, head, rows):
    assert [case["label"] for case in dataset(rows, head)[::2]] == [0, 1, 1, 0]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (ROWS[:3], "subject p3 (2 scans) has no row in"),
        ([*ROWS, "p3,1,x"], "subject p3 (2 scans) has contradicting rows"),
        ([*ROWS[:3], "p3,7,x"], "subject p3 (2 scans) has grade '7'"),
        ([*ROWS[:3], "p3"], "subject p3 (2 scans) has grade ''"),
    ],
    ids=["no row", "contradiction", "another value", "no value"],
)
def test_a_patient_without_class_is_named_or_left_out(dataset, capsys, rows, message):
    with pytest.raises(InputError, match="1 of 4 subjects cannot be used") as error:
        dataset(rows)
    assert message in str(error.value)
    assert {case["subject"] for case in dataset(rows, skip_bad=True)} == {"p0", "p1", "p2"}
    assert message in capsys.readouterr().out


def test_zeros_that_a_spreadsheet_dropped_are_named(tmp_path):
    for patient in range(1, 4):
        volume = np.random.default_rng(patient).random((6, 6, 6)).astype(np.float32)
        write_nifti(tmp_path / f"00{patient}" / "scan.nii.gz", volume)
    rows = ["patient,grade", "001,0", "2,1", "003,0"]
    (tmp_path / "table.csv").write_text("\n".join(rows), encoding="utf-8")
    with pytest.raises(InputError, match="write 002 in place of 2 there, a spreadsheet has dropped the zeros"):
        classified_cases(str(tmp_path), TABLE, CLASSES, r"00\d")
    (tmp_path / "table.csv").write_text("\n".join(rows).replace("\n2", "\n002"), encoding="utf-8")
    assert [case["label"] for case in classified_cases(str(tmp_path), TABLE, CLASSES, r"00\d")] == [0, 1, 0]


def test_large_numbers_are_other_classes(dataset):
    classes = [{"name": "one", "values": [10000001]}, {"name": "two", "values": ["10000002.0"]}]
    rows = ["p0,10000001,x", "p1,10000002,x", "p2,10000002,x", "p3,10000001,x"]
    assert [case["label"] for case in dataset(rows, classes=classes)[::2]] == [0, 1, 1, 0]


def test_a_table_about_others_is_refused_even_with_skip_bad(dataset):
    with pytest.raises(InputError, match=r"4 of 4 subjects .*\n.*its column patient reads q0, q1"):
        dataset(["q0,0,x", "q1,1,x"], skip_bad=True)


def test_surplus_rows_are_reported_alone(dataset, capsys):
    assert len(dataset([*ROWS, "p8,0,x", "p9,77,x"])) == 8
    assert "2 subjects" in (said := capsys.readouterr().out)
    assert "have no scan: p8, p9" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"table": {**TABLE, "file": "none.csv"}}, "none.csv does not exist"),
        ({"table": {**TABLE, "id": "PatientID"}}, "no column 'PatientID': its columns are patient, grade, other"),
        ({"table": {**TABLE, "target": "group"}}, "no column 'group'"),
        ({"table": {"file": "table.csv"}}, "table must name a file"),
        ({"rows": []}, "has no rows"),
        ({"classes": CLASSES[:1]}, "two classes or more, not 1"),
        ({"classes": [*CLASSES, {"name": "odd", "values": []}]}, "class odd needs a list of values"),
        ({"classes": [*CLASSES, {"name": "odd", "values": ["2.0"]}]}, "value '2' belongs to two classes"),
        ({"skip_bad": "yes"}, "skip_bad must be True or False"),
    ],
)
def test_settings_that_will_not_do(dataset, arguments, message):
    with pytest.raises(InputError, match=message):
        dataset(**arguments)


@pytest.mark.parametrize(
    "content",
    [b"PK\x03\x04\x00\x00binary", b"\xff\xfe\x00", b'a,b\n"open,1\n'],
    ids=["zip", "half a sign", "open quote"],
)
def test_something_else_than_csv_is_refused(tmp_path, content):
    (tmp_path / "table.csv").write_bytes(content)
    with pytest.raises(InputError, match=r"table\.csv cannot be read as CSV"):
        read_table(tmp_path / "table.csv", ["a"])


def test_an_empty_table_has_no_column(tmp_path):
    (tmp_path / "table.csv").touch()
    with pytest.raises(InputError, match="its columns are none"):
        read_table(tmp_path / "table.csv", ["a"])


def test_classes_are_drawn_equally_often():
    cases = [{"label": 0}] * 6 + [{"label": 1}] * 2
    weights = sampling_weights(cases)
    assert sum(weights[:6]) == pytest.approx(sum(weights[6:]))


def made_up(counts=(20, 6, 3)):
    """Subjects of uneven classes, two scans each."""
    return [
        {"subject": f"{number}_{n}", "label": number, "classes": [number + 1], "scan": scan}
        for number, count in enumerate(counts)
        for n in range(count)
        for scan in range(2)
    ]


NAMES = ["usual", "uneven", "rare"]


def split(cases=None, **arguments):
    return split_cases(cases or made_up(), **{"class_names": NAMES, "stratify": True, **arguments})


def counts(part):
    return [len({case["subject"] for case in part if case["label"] == number}) for number in range(3)]


def test_every_part_shows_every_class():
    parts = split()
    assert {name: counts(part) for name, part in parts.items()} == {
        "train": [14, 4, 1],
        "validation": [3, 1, 1],
        "test": [3, 1, 1],
    }
    assert split() == parts
    assert split(seed=1) != parts


def test_few_labels_are_one_of_each_class_and_then_in_proportion():
    full = split()
    chosen = []
    for number in (3, 8, 15):
        parts = split(num_labelled=number)
        assert (parts["validation"], parts["test"]) == (full["validation"], full["test"])
        chosen.append({case["subject"] for case in parts["train"]})
    assert chosen[0] < chosen[1] < chosen[2]
    assert counts(split(num_labelled=3)["train"]) == [1, 1, 1]
    assert counts(split(num_labelled=8)["train"]) == [5, 2, 1]


def test_folds_share_out_every_class():
    cases = made_up((10, 10, 10))
    parts = [split(cases, folds=3, fold=fold) for fold in range(3)]
    validated = [case["subject"] for part in parts for case in part["validation"][::2]]
    assert len(validated) == len(set(validated)) == 24
    assert all(min(counts(part["validation"])) >= 2 for part in parts)
    assert all(part["test"] == parts[0]["test"] for part in parts)


def test_a_small_fold_may_lack_a_class():
    assert counts(split(made_up((2, 2, 2)), folds=3, test_fraction=0)["validation"]) == [1, 1, 0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cases": made_up((20, 6, 2))}, "2 subjects of class rare are too few"),
        ({"cases": made_up((20, 6))}, "no case of the training part shows rare"),
        ({"num_labelled": 2}, "no case of the training part shows rare"),
        ({"cases": made_up((3, 3, 3)), "folds": 6, "fold": 5}, "validation part shows one class alone"),
    ],
)
def test_too_few_subjects(arguments, message):
    with pytest.raises(InputError, match=message):
        split(**arguments)
