# SPDX-License-Identifier: Apache-2.0

"""Answers of a real server lie on the scan that is open, whatever its header says, in ITK (3D Slicer) and nibabel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import make_label_task
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from geometries import as_itk_reads, header_kinds, same, write_header
from label_server import CHILDREN, PATIENT, Server, bundle_run, dices, scan, started
from scripts.data import scan_geometry

CHILD = next(iter(CHILDREN))
SIZE = (30, 28, 26)
KINDS = {kind.replace(" ", "_"): fields for kind, fields in header_kinds(PATIENT).items()}
KINDS["nifti-2"] = {"sform": PATIENT, "kind": nib.Nifti2Image}
SHEARED = [kind for kind in KINDS if "sheared" in kind]
STRAIGHT = [kind for kind in KINDS if kind not in SHEARED]
DRAWN_ON = ("ordinary", "codes_are_0", "sform_and_qform_differ", "micrometres")


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("odd_studies")
    for number, (kind, fields) in enumerate(KINDS.items()):
        write_header(folder / f"{kind}.nii", scan(300 + number, SIZE)[0], **fields)
    return folder


@pytest.fixture(scope="module")
def server(
    label_python: Path, studies: Path, children: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    made = tmp_path_factory.mktemp("task")
    assert make_label_task.main([str(studies), str(made), "--labels", "core", "shell"]) == 0
    bundles = {make_label_task.NAME: made / make_label_task.NAME, CHILD: children[CHILD]}
    with started(label_python, studies, bundles, tmp_path_factory.mktemp("odd_server")) as running:
        yield running


def truth(kind: str) -> np.ndarray:
    return scan(300 + list(KINDS).index(kind), SIZE)[1]


def answer(server: Server, name: str, kind: str, folder: Path) -> Path:
    """The file that 3D Slicer gets."""
    path = folder / f"{kind}_{name}.nii.gz"
    nib.save(server.infer(name, kind), path)
    return path


def lies_on(study: Path, result: Path) -> bool:
    """In ITK; in nibabel where the scan itself lies in one place."""
    geometry, found = scan_geometry(str(study)), scan_geometry(str(result))
    in_itk = as_itk_reads(study)
    alike = in_itk is None or same(as_itk_reads(result), in_itk)
    agreed = geometry.itk_affine is None or same(geometry.itk_affine, geometry.affine)
    return alike and found.size == geometry.size and (not agreed or same(found.affine, geometry.affine))


def draw(server: Server, kind: str, studies: Path, folder: Path) -> None:
    """What 3D Slicer submits: a label map with the geometry that ITK reads of the scan."""
    volume = sitk.ReadImage(str(studies / f"{kind}.nii"))
    label = sitk.GetImageFromArray(truth(kind).T)
    label.CopyInformation(volume)
    path = folder / f"{kind}.nii.gz"
    sitk.WriteImage(label, str(path))
    file = {"label": (path.name, path.read_bytes())}
    server.call("PUT", "/datastore/label", params={"image": kind, "tag": "final"}, files=file)


@pytest.mark.parametrize("kind", STRAIGHT)
def test_a_child(kind: str, server: Server, studies: Path, children: dict[str, Path], tmp_path: Path) -> None:
    """The same voxels as the command line gives, and where the scan lies."""
    study = studies / f"{kind}.nii"
    result = answer(server, CHILD, kind, tmp_path)
    assert lies_on(study, result)
    found = np.asarray(nib.load(result).dataobj).astype(int)
    bundle_run(children[CHILD], "inference", image=study, output_dir=tmp_path / "out")
    (written,) = (tmp_path / "out").glob("*_seg.nii.gz")
    assert lies_on(study, written)
    assert (np.asarray(nib.load(written).dataobj) == found).mean() > 0.999
    assert (truth(kind) == found).mean() > 0.9


@pytest.mark.parametrize("name", [CHILD, make_label_task.NAME])
@pytest.mark.parametrize("kind", SHEARED)
def test_sheared_scans_are_refused(kind: str, name: str, server: Server, studies: Path, tmp_path: Path) -> None:
    """ITK, which writes the answer, would drop the shear in silence."""
    draw(server, "ordinary", studies, tmp_path)
    assert server.refuses(name, kind, rf"{kind}\.nii is sheared, which ITK cannot write: resample it")


def test_labels_drawn_in_3d_slicer_are_carried(server: Server, studies: Path, tmp_path: Path) -> None:
    """Drawn on scans of four kinds, carried to one of every kind."""
    for kind in DRAWN_ON:
        draw(server, kind, studies, tmp_path)
    wrong = {}
    for kind in STRAIGHT:
        result = answer(server, make_label_task.NAME, kind, tmp_path)
        found = np.asarray(nib.load(result).dataobj).astype(int)
        dice = dices(found, truth(kind))
        if not lies_on(studies / f"{kind}.nii", result) or min(dice) < 0.6:
            wrong[kind] = (lies_on(studies / f"{kind}.nii", result), dice)
    assert not wrong


def test_labels_drawn_in_3d_slicer_are_trained_on(server: Server, studies: Path, tmp_path: Path) -> None:
    """On scans that libraries place differently too."""
    for kind in STRAIGHT:
        if kind != "nifti-2":
            draw(server, kind, studies, tmp_path)
    server.train(CHILD)
    found = np.asarray(server.infer(CHILD, "sform_and_qform_differ").dataobj).astype(int)
    assert (truth("sform_and_qform_differ") == found).mean() > 0.9
