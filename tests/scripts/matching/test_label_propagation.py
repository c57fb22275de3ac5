# SPDX-License-Identifier: Apache-2.0

"""Rounds of carrying labels over: corrected label maps become atlases, and take the place of what they correct."""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scripts.errors import InputError
from scripts.matching import list_propagation, take_corrected
from support import write_nifti

AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Three scans of one name in folders of their own, and an atlas with its label map."""
    random = np.random.default_rng(0)
    for place in ("scans/a", "scans/b", "scans/c", "atlas"):
        write_nifti(tmp_path / place / "t1.nii.gz", random.random((8, 9, 7)).astype(np.float32), AFFINE)
    write_nifti(tmp_path / "atlas_label.nii.gz", np.ones((8, 9, 7), np.uint8), AFFINE)
    return tmp_path


def listed(folder: Path) -> list[dict]:
    paths = (str(folder / "scans"), str(folder / "atlas" / "t1.nii.gz"), str(folder / "atlas_label.nii.gz"))
    return list_propagation(*paths, str(folder / "out"))


def test_a_corrected_label_map_is_an_atlas_of_the_next_round(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its scan gets no other label, its result is replaced, the others keep their names; then a further round."""
    assert [(pair["result"], pair["votes"]) for pair in listed(scans)] == [(f"{n}_t1", 1) for n in "abc"]
    out, label = scans / "out", np.zeros((8, 9, 7), np.uint16)
    label[2:4] = 300
    for name in ("b_t1", "c_t1"):
        write_nifti(out / f"{name}.nii.gz", np.ones((8, 9, 7), np.uint8), AFFINE)
        write_nifti(out / "confidence" / f"{name}.nii.gz", np.ones((8, 9, 7), np.float32), AFFINE)
    write_nifti(out / "corrected" / "b_t1.nii.gz", label, AFFINE)
    for _ in range(2):
        pairs = listed(scans)
        take_corrected(str(out), pairs)
        found = [(pair["result"], Path(pair["moving"]).parent.name, pair["votes"]) for pair in pairs]
        assert found == [("a_t1", "atlas", 2), ("a_t1", "b", 2), ("c_t1", "atlas", 2), ("c_t1", "b", 2)]
    written = nib.load(out / "b_t1.nii.gz")
    np.testing.assert_array_equal(np.asarray(written.dataobj), label)
    np.testing.assert_allclose(written.affine, AFFINE)
    assert not (out / "confidence" / "b_t1.nii.gz").exists()
    assert (out / "confidence" / "c_t1.nii.gz").exists()
    with (out / "propagation.csv").open(newline="") as file:
        assert [(row["result"], row["look_at"]) for row in csv.DictReader(file)] == [("b_t1", "corrected")]
    assert "corrected/b_t1.nii.gz" in capsys.readouterr().out
    (out / "corrected" / "b_t1.nii.gz").unlink()  # taken back
    assert {pair["result"] for pair in listed(scans)} == {"a_t1", "b_t1", "c_t1"}


def test_what_corrects_nothing_is_refused(scans: Path) -> None:
    corrected = scans / "out" / "corrected"
    label = np.ones((8, 9, 7), np.uint8)
    write_nifti(corrected / "t1.nii.gz", label, AFFINE)
    with pytest.raises(InputError, match=r"corrected/t1\.nii\.gz has the name of no result.*a_t1\.nii\.gz"):
        listed(scans)
    (corrected / "t1.nii.gz").unlink()
    (corrected / "notes.txt").write_text("b is fine")
    write_nifti(corrected / "a_t1.nii.gz", label, AFFINE)
    write_nifti(corrected / "a_t1.nii", label, AFFINE)
    with pytest.raises(InputError, match="both correct one label map"):
        listed(scans)
    (corrected / "a_t1.nii").unlink()
    write_nifti(corrected / "b_t1.nii.gz", label[:-1], AFFINE)
    with pytest.raises(InputError, match=r"b_t1\.nii\.gz has another geometry"):
        listed(scans)
    write_nifti(corrected / "b_t1.nii.gz", label, AFFINE)
    write_nifti(corrected / "c_t1.nii.gz", label, AFFINE)
    with pytest.raises(InputError, match=r"every scan of .* has a label"):
        listed(scans)


def test_options_of_a_match_are_refused(scans: Path) -> None:
    """They are ids of the same configuration, and would be dropped."""
    unused = {"fixed": None, "pairs": "pairs.json"}
    with pytest.raises(InputError, match="--pairs is of a match: labels are carried by --atlas, --atlas_label and"):
        list_propagation(str(scans / "scans"), "a.nii.gz", "b.nii.gz", unused=unused)


def test_results_do_not_lie_between_the_scans(scans: Path) -> None:
    """Confidence maps would be the scans of the next run."""
    paths = (str(scans / "atlas" / "t1.nii.gz"), str(scans / "atlas_label.nii.gz"))
    with pytest.raises(InputError, match="is the folder of the scans"):
        list_propagation(str(scans / "scans"), *paths, str(scans / "scans"))


def test_atlases_that_lack_structures_of_others_are_told(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Code 2 is in one of two label maps; nothing is said where it is known, or where all show the same."""
    write_nifti(scans / "second" / "t1.nii.gz", np.random.default_rng(1).random((8, 9, 7)).astype(np.float32), AFFINE)
    label = np.ones((8, 9, 7), np.uint8)
    write_nifti(scans / "second_label.nii.gz", label, AFFINE)
    atlases = [str(scans / name / "t1.nii.gz") for name in ("atlas", "second")]
    labels = [str(scans / f"{name}_label.nii.gz") for name in ("atlas", "second")]
    list_propagation(str(scans / "scans"), atlases, labels)
    assert "--partial_labels" not in capsys.readouterr().out
    label[3:] = 2
    write_nifti(scans / "second_label.nii.gz", label, AFFINE)
    list_propagation(str(scans / "scans"), atlases, labels)
    said = "label maps: of 2, code 2 in 1; what a map does not show counts as not there"
    assert said in capsys.readouterr().out
    list_propagation(str(scans / "scans"), atlases, labels, partial_labels=True)
    assert "label maps:" not in capsys.readouterr().out
    with pytest.raises(InputError, match="partial_labels"):
        list_propagation(str(scans / "scans"), atlases, labels, partial_labels="no")  # type: ignore[arg-type]
