# SPDX-License-Identifier: Apache-2.0

"""What a user of 3D Slicer does, over REST: two children at once in a real server, in the order of a working day."""

from __future__ import annotations

import io
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import requests
import torch
from label_server import CHILDREN, NEW, Server, bundle_run, scan

PLAIN, CODED = CHILDREN


def volume(image: nib.Nifti1Image) -> np.ndarray:
    """The values of a label map."""
    return np.asarray(image.dataobj).astype(int)


def dice(first: np.ndarray, second: np.ndarray) -> float:
    """Of one structure."""
    return 2 * (first & second).sum() / (first.sum() + second.sum())


def test_both_are_listed_with_their_labels(server: Server) -> None:
    models = server.call("GET", "/info/").json()["models"]
    assert set(models) == {*CHILDREN, NEW}
    assert models[PLAIN]["type"] == models[CODED]["type"] == "segmentation"
    assert models[PLAIN]["labels"] == models[CODED]["labels"] == {"core": 1, "shell": 2}
    assert models[PLAIN]["version"] == "0.1.0"


@pytest.mark.parametrize("name", CHILDREN)
def test_inference_gives_class_numbers_in_the_study_s_geometry(
    name: str, server: Server, studies: Path, children: dict[str, Path], tmp_path: Path
) -> None:
    """The same places as the command line writes, there with the codes of the label files."""
    for path in sorted(studies.glob("*.nii.gz"))[:3]:
        study = nib.load(path)
        label = server.infer(name, path.name.removesuffix(".nii.gz"))
        assert label.shape == study.shape
        np.testing.assert_allclose(label.affine, study.affine, atol=1e-3)
        found = volume(label)
        assert set(np.unique(found)) == {0, 1, 2}
        truth = scan(100 + int(path.name[8]), study.shape)[1]
        assert min(dice(found == number, truth == number) for number in (1, 2)) > 0.8
        bundle_run(children[name], "inference", image=path, output_dir=tmp_path)
        coded = volume(nib.load(tmp_path / path.name.replace(".nii", "_seg.nii")))
        assert set(np.unique(coded)) == {0, *CHILDREN[name]}
        numbers = np.zeros(6, int)
        for code, number in CHILDREN[name].items():
            numbers[code] = number
        assert (numbers[coded] == found).mean() > 0.999


def test_one_does_not_disturb_the_other(server: Server) -> None:
    alone = {name: volume(server.infer(name, "patient_4")) for name in CHILDREN}
    for name in (PLAIN, CODED, CODED, PLAIN):
        np.testing.assert_array_equal(volume(server.infer(name, "patient_4")), alone[name])


def test_label_names_are_those_of_the_task(server: Server) -> None:
    answer = server.call("POST", f"/infer/{CODED}", params={"image": "patient_0", "output": "json"}).json()
    assert answer["label_names"] == {"core": 1, "shell": 2}


@pytest.mark.parametrize("name", CHILDREN)
def test_labels_are_saved_and_trained_on(name: str, server: Server, studies: Path) -> None:
    """Two epochs, the second into the folder of the first; half of the labels, for either side, are all background."""
    for number in range(4):
        study = nib.load(studies / f"patient_{number}.nii.gz")
        label = scan(100 + number, study.shape)[1] * np.uint8(number in (1, 2))
        content = nib.Nifti1Image(label, study.affine).to_bytes()
        file = {"label": (f"patient_{number}.nii", io.BytesIO(content))}
        server.call("PUT", "/datastore/label", params={"image": f"patient_{number}", "tag": "final"}, files=file)
    known = server.call("GET", "/datastore/", params={"output": "all"}).json()["objects"]
    assert [image for image in sorted(known) if "final" in known[image]["labels"]] == [f"patient_{n}" for n in range(4)]

    weights = {child: (server.models / child / "models" / "model.pt").read_bytes() for child in CHILDREN}
    for _ in range(2):
        server.train(name)
        for child, before in weights.items():
            after = (server.models / child / "models" / "model.pt").read_bytes()
            assert (after != before) == (child == name), server.log.read_text()[-5000:]
        weights[name] = (server.models / name / "models" / "model.pt").read_bytes()
    log = server.log.read_text()
    assert "Training Finished" in log
    assert f"Restored all variables from {server.models / name / 'models' / 'model.pt'}" in log
    state = torch.load(server.models / name / "models" / "model.pt", weights_only=True)
    assert all(value.isfinite().all() for value in state.values())
    found = volume(server.infer(name, "patient_5"))
    truth = scan(105, found.shape)[1]
    assert min(dice(found == number, truth == number) for number in (1, 2)) > 0.5  # half of what it was taught is wrong


def test_a_new_child_begins_with_a_fitted_layer(server: Server) -> None:
    """Its first training fits the layer that has learned nothing, the second goes on with it."""
    assert not volume(server.infer(NEW, "patient_5")).any()
    for fitted in (True, False):
        before = len(server.log.read_text())
        server.train(NEW)
        assert ("last layer: fitted to" in server.log.read_text()[before:]) == fitted
    state = torch.load(server.models / NEW / "models" / "model.pt", weights_only=True)
    assert state["head.weight"].any()


def test_labels_mean_the_same_whatever_the_codes(server: Server) -> None:
    """The two learned the same task, by class numbers in the server: what one label means to either is the same."""
    plain, coded = (volume(server.infer(name, "patient_5")) for name in (PLAIN, CODED))
    assert (plain == coded).mean() > 0.999


@pytest.mark.parametrize("strategy", ["random", "first"])
def test_the_next_sample_has_no_label_yet(strategy: str, server: Server) -> None:
    chosen = server.call("POST", f"/activelearning/{strategy}").json()
    assert chosen["id"] in ("patient_4", "patient_5")


def test_it_shuts_down(server: Server) -> None:
    server.process.terminate()
    assert server.process.wait(60) in (0, -15)
    with pytest.raises(requests.ConnectionError):
        requests.get(server.url + "/info/", timeout=5)
