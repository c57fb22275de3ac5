# SPDX-License-Identifier: Apache-2.0

"""Results are named by what tells their scans apart, and never overwrite each other."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripts.data import ResultLayout, record_results, refuse_overwriting, result_names, scan_name
from scripts.data.result_names import folded, read_record
from scripts.errors import InputError

WORDS = st.sampled_from(["a", "A", "b", "sub-01", "T1", "ü", "ü", "a_b", "1.2.840", "IM [1]"])
PATHS = st.builds(
    lambda folders, name, ending: "/".join(["/data", *folders, name]) + ending,
    st.lists(WORDS, max_size=3),
    WORDS,
    st.sampled_from([".nii.gz", ".nii", ".mha", ""]),
)


@given(st.lists(PATHS, min_size=1, max_size=8, unique=True))
def test_no_two_names_are_one_file_or_the_run_is_refused(paths):
    try:
        names = result_names(paths)
    except InputError:
        return
    assert list(names) == paths
    assert len({folded(name) for name in names.values()}) == len(paths)
    assert all(name and os.sep not in name for name in names.values())


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["x/s1.nii.gz", "x/s2.nii"], ["s1", "s2"]),
        (["k/case_0/imaging.nii.gz", "k/case_1/imaging.nii.gz"], ["case_0_imaging", "case_1_imaging"]),
        (["sub-1/ses-1/anat/sub-1_ses-1_T1w.nii.gz", "sub-1/ses-2/anat/sub-1_ses-2_T1w.nii.gz"],
         ["sub-1_ses-1_T1w", "sub-1_ses-2_T1w"]),
        (["p1/DICOM", "p2/DICOM"], ["p1_DICOM", "p2_DICOM"]),
        (["p/1.2.840.1", "p/1.2.840.2"], ["1.2.840.1", "1.2.840.2"]),
        (["x/a.nii", "x/a.nii.gz"], ["a.nii", "a.nii.gz"]),
        (["a_b/c.nii", "a/b_c.nii", "d/c.nii"], ["a_b__c", "a__b_c", "d__c"]),
        (["only/imaging.nii.gz"], ["imaging"]),
    ],
)  # fmt: skip
def test_names(paths, expected):
    assert list(result_names(paths).values()) == expected


def test_names_that_differ_in_case_alone_are_refused():
    with pytest.raises(InputError, match=r"x/S\.nii and x/s\.nii would both be written to .*--output_dir"):
        result_names(["x/S.nii", "x/s.nii"])


def test_names_that_differ_in_the_spelling_of_accents_alone_are_refused():
    with pytest.raises(InputError, match=r"how accents are stored.*rename one of them"):
        result_names(["x/Mu\u0308ller.nii", "x/Müller.nii"])
    assert list(result_names(["x/Mu\u0308ller 1.nii", "x/Müller.nii"]).values()) == ["Mu\u0308ller 1", "Müller"]


def test_long_names_are_cut_and_stay_different(tmp_path):
    """Those of two scans, of deep folders or long descriptions, fit into one file's name."""
    paths = [f"{'ä' * 100}/{n}/{'b' * 200}.nii.gz" for n in "12"]
    names = list(result_names(paths).values())
    assert len(set(names)) == 2
    (tmp_path / f"{names[0]}_to_{names[1]}.nii.gz").touch()
    assert names == list(result_names(paths).values())
    assert list(result_names(["c" * 110]).values()) == ["c" * 110]


def test_results_of_an_earlier_run_stay(tmp_path):
    """The same scan again is welcome, another one of the same name is not."""
    record_results(str(tmp_path), {"imaging": ["case_0/imaging.nii.gz"]})
    record_results(str(tmp_path), {"imaging": ["case_0/imaging.nii.gz"], "other": ["x.nii"]})
    with pytest.raises(InputError, match=r"holds the result imaging of .*case_0.*case_1.*another --output_dir"):
        record_results(str(tmp_path), {"Imaging": ["case_1/imaging.nii.gz"]})
    record_results(str(tmp_path / "other"), {"imaging": ["case_1/imaging.nii.gz"]})  # as the message says
    assert list(read_record(tmp_path)) == ["imaging", "other"]


def test_layout_of_the_names_in_the_record(tmp_path):
    """MONAI's own would cut both at their first dot and write one file."""
    paths = [str(tmp_path / "p" / f"1.2.840.{n}" / "scan.v2.nii.gz") for n in (1, 2)]
    record_results(str(tmp_path / "out"), {name: [path] for path, name in result_names(paths).items()})
    layout = ResultLayout(str(tmp_path / "out"))
    assert [layout.filename(subject=path).name for path in paths] == [
        "1.2.840.1_scan.v2_seg.nii.gz",
        "1.2.840.2_scan.v2_seg.nii.gz",
    ]
    assert layout.filename(subject="elsewhere/new.nii").name == "new_seg.nii.gz"


def test_a_result_never_replaces_its_scan(tmp_path):
    with pytest.raises(InputError, match="is an input of this run"):
        refuse_overwriting([tmp_path / "a.nii.gz"], [tmp_path / "x" / ".." / "a.nii.gz"])
    refuse_overwriting([tmp_path / "a.nii.gz"], [tmp_path / "out" / "a.nii.gz"])


@pytest.mark.parametrize(
    ("path", "name"), [("a/b.nii.gz", "b"), ("B.NRRD", "B"), ("a/series", "series"), (".nii", ".nii")]
)
def test_scan_name(path, name):
    assert scan_name(path) == name
