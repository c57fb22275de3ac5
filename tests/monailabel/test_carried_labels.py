# SPDX-License-Identifier: Apache-2.0

"""Labels submitted for some scans, carried to the one that is open, by a real server over REST."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import make_label_task
import nibabel as nib
import numpy as np
import pytest
from label_server import Server, dices, scan, started, write

SIZES = [(36, 30, 26), (32, 34, 24), (30, 28, 28), (35, 29, 25)]


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("open_studies")
    for number, size in enumerate(SIZES):
        write(folder / f"person_{number}.nii.gz", scan(200 + number, size)[0])
    return folder


@pytest.fixture(scope="module")
def server(label_python: Path, studies: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = tmp_path_factory.mktemp("task")
    assert make_label_task.main([str(studies), str(made), "--labels", "core", "Shell", "--refine", "10"]) == 0
    bundles = {make_label_task.NAME: made / make_label_task.NAME}
    with started(label_python, studies, bundles, tmp_path_factory.mktemp("carrying")) as running:
        yield running


def submit(server: Server, number: int) -> None:
    """What the button of 3D Slicer does."""
    label = nib.Nifti1Image(scan(200 + number, SIZES[number])[1], write_affine(server, number))
    file = {"label": (f"person_{number}.nii", io.BytesIO(label.to_bytes()))}
    server.call("PUT", "/datastore/label", params={"image": f"person_{number}", "tag": "final"}, files=file)


def write_affine(server: Server, number: int) -> np.ndarray:
    answer = server.call("GET", "/datastore/image", params={"image": f"person_{number}"})
    path = server.log.parent / f"person_{number}.nii.gz"
    path.write_bytes(answer.content)
    return nib.load(path).affine


def test_it_is_listed_with_the_names_of_the_structures_and_is_not_trained(server: Server) -> None:
    info = server.call("GET", "/info/").json()
    assert info["models"][make_label_task.NAME]["type"] == "segmentation"
    assert info["models"][make_label_task.NAME]["labels"] == {"core": 1, "shell": 2}
    assert make_label_task.NAME not in info["trainers"]


def test_without_a_submitted_label_its_log_says_so(server: Server) -> None:
    message = r"InputError: no other scan beside .*person_3.* has a submitted label yet"
    assert server.refuses(make_label_task.NAME, "person_3", message)


def test_submitted_labels_arrive_on_the_open_scan(server: Server, studies: Path) -> None:
    """In its own geometry, from one scan and then from three; a scan's own label is not what it gets."""
    for numbers, least in (([0], 0.5), ([1, 2], 0.6)):
        for number in numbers:
            submit(server, number)
        study = nib.load(studies / "person_3.nii.gz")
        carried = server.infer(make_label_task.NAME, "person_3")
        assert carried.shape == study.shape
        np.testing.assert_allclose(carried.affine, study.affine, atol=1e-3)
        found = np.asarray(carried.dataobj).astype(int)
        assert set(np.unique(found)) == {0, 1, 2}
        assert min(dices(found, scan(203, SIZES[3])[1])) > least
    submit(server, 3)
    again = np.asarray(server.infer(make_label_task.NAME, "person_3").dataobj).astype(int)
    np.testing.assert_array_equal(again, found)
