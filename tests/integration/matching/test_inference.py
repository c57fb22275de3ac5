# SPDX-License-Identifier: Apache-2.0

"""Matches of scans, their features and corresponding voxels, and mistakes that are named."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from matching_runs import HEART, expect_refusal, made_network, run
from scripts.errors import InputError


def test_inference_writes_in_the_fixed_scans_geometry(phantoms, model, tmp_path, monkeypatch):
    """Phantoms are stored in different orientations and spacings; everything comes in the fixed scan's own."""
    images, labels = phantoms / "imagesTr", phantoms / "labelsTr"
    fixed = images / "phantom_000.nii.gz"
    moving = {"moving": f"{images}/phantom_00[12].nii.gz", "moving_label": f"{labels}/phantom_00[12].nii.gz"}
    assert run(["inference"], model, tmp_path, monkeypatch, fixed=str(fixed), **moving) == []
    reference = nib.load(fixed)
    assert nib.aff2axcodes(reference.affine) != nib.aff2axcodes(nib.load(images / "phantom_001.nii.gz").affine)
    for name in ("phantom_001", "phantom_002"):
        folder = tmp_path / f"{name}_to_phantom_000"
        names = {path.name for path in folder.iterdir()}
        kinds = ("warped", "warped_label", "displacement", "jacobian", "probabilities")
        assert names == {*(f"{kind}.nii.gz" for kind in kinds), "affine.txt", "probabilities.txt"}
        for kind in kinds:
            written = nib.load(folder / f"{kind}.nii.gz")
            assert written.shape[:3] == reference.shape
            assert np.allclose(written.affine, reference.affine, atol=1e-4)
        carried = np.asarray(nib.load(folder / "warped_label.nii.gz").dataobj)
        assert set(np.unique(carried)) <= {0, *HEART}
        shares = nib.load(folder / "probabilities.nii.gz").get_fdata()
        codes = np.loadtxt(folder / "probabilities.txt")
        inside = shares.sum(-1) > 0.999
        agree = codes[shares.argmax(-1)][inside] == carried[inside]
        assert inside.mean() > 0.5
        assert agree.mean() > 0.95
        assert np.loadtxt(folder / "affine.txt").shape == (4, 4)


def test_matching_a_scan_with_itself_by_an_untrained_model_keeps_it(phantoms, tmp_path, monkeypatch):
    """Heads at zero are the identity: the other scan is the same file, so it comes back unchanged, in its geometry."""
    network = made_network()
    torch.save(network.state_dict(), tmp_path / "model.pt")
    scan = phantoms / "imagesTr" / "phantom_001.nii.gz"
    twin = tmp_path / "twin.nii.gz"
    twin.write_bytes(scan.read_bytes())
    out = tmp_path / "out"
    run(["inference"], tmp_path / "model.pt", out, monkeypatch, fixed=str(scan), moving=str(twin))
    warped = nib.load(out / "twin_to_phantom_001" / "warped.nii.gz").get_fdata()
    original = nib.load(scan).get_fdata()
    assert np.abs(warped - original)[1:-1, 1:-1, 1:-1].max() < 1
    assert np.allclose(np.loadtxt(out / "twin_to_phantom_001" / "affine.txt"), np.eye(4), atol=1e-4)
    jacobian = nib.load(out / "twin_to_phantom_001" / "jacobian.nii.gz").get_fdata()
    assert np.allclose(jacobian, 1, atol=1e-3)


def test_features_are_written_per_scan(phantoms, model, tmp_path, monkeypatch):
    run(["inference", "features"], model, tmp_path, monkeypatch, dataset_dir=str(phantoms))
    assert np.load(tmp_path / "phantom_003_global.npy").shape == (16,)
    assert nib.load(tmp_path / "phantom_003_local.nii.gz").shape == (28, 24, 24, 4)
    assert len(list(tmp_path.iterdir())) == 12  # and results.csv, scans.csv


@pytest.mark.parametrize(("spacing", "size"), [(10, [28, 24, 24]), (20, [14, 12, 12])])
def test_correspondence_of_a_scan_with_itself_is_the_voxel(phantoms, tmp_path, monkeypatch, spacing, size):
    """Of voxels twice as large as the scan's the match goes on to a finer grid; the features stay on this one."""
    network = made_network()
    torch.save(network.state_dict(), tmp_path / "model.pt")
    scan, twin = phantoms / "imagesTr" / "phantom_002.nii.gz", tmp_path / "twin.nii.gz"
    twin.write_bytes(scan.read_bytes())
    voxel = [n // 3 for n in nib.load(scan).shape]
    options = {"fixed": str(scan), "moving": str(twin), "voxel": voxel, "pixdim": [spacing] * 3, "spatial_size": size}
    run(["inference", "correspond"], tmp_path / "model.pt", tmp_path / "out", monkeypatch, **options)
    found = json.loads(next((tmp_path / "out").rglob("correspondence.json")).read_text())
    assert np.allclose(found["by_match"]["voxel"], voxel, atol=0.02)
    offset = (np.array(found["by_features"]["voxel"]) - voxel) * nib.load(scan).header.get_zooms()
    assert np.linalg.norm(offset) < 1.2 * spacing  # of the grid that was searched
    assert found["similarity"] > 0.8
    similarity = nib.load(next((tmp_path / "out").rglob("similarity.nii.gz"))).get_fdata()
    assert similarity.shape == nib.load(scan).shape
    assert similarity[tuple(voxel)] > 0.5


def test_mistakes_are_named(phantoms, model, tmp_path, monkeypatch):
    images = phantoms / "imagesTr"
    pair = {"fixed": f"{images}/phantom_000.nii.gz", "moving": f"{images}/phantom_001.nii.gz"}
    expect_refusal("of another architecture", ["inference"], model, tmp_path, monkeypatch, **pair, features=[4, 8])
    expect_refusal("must have one letter", ["inference"], model, tmp_path, monkeypatch, **pair, orientation="XYZ")
    expect_refusal("does not exist: pass", ["inference"], tmp_path / "no.pt", tmp_path, monkeypatch, **pair)
    outside = {**pair, "voxel": [1000, 0, 0]}
    expect_refusal("lies outside", ["inference", "correspond"], model, tmp_path, monkeypatch, **outside)
    expect_refusal("--voxel", ["inference", "correspond"], model, tmp_path, monkeypatch, **pair)
    expect_refusal("outputs has no 'all'", ["inference"], model, tmp_path, monkeypatch, **pair, outputs=["all"])
    wrong = {**pair, "moving_label": f"{phantoms}/labelsTr/phantom_002.nii.gz"}
    expect_refusal("another geometry", ["inference"], model, tmp_path, monkeypatch, **wrong)


def test_where_the_moving_scan_does_not_reach_is_its_lowest_value(phantoms, model, tmp_path, monkeypatch):
    """Air, where 0 would be water."""
    fixed, whole = (nib.load(phantoms / "imagesTr" / f"phantom_00{k}.nii.gz") for k in (0, 1))
    volume = np.asarray(whole.dataobj, dtype=np.float32) - 1024
    part = slice(0, volume.shape[2] // 2)
    nib.save(nib.Nifti1Image(volume[:, :, part], whole.affine), tmp_path / "half.nii.gz")
    pair = {"fixed": fixed.get_filename(), "moving": str(tmp_path / "half.nii.gz")}
    run(["inference"], model, tmp_path / "out", monkeypatch, **pair)
    warped = nib.load(tmp_path / "out" / "half_to_phantom_000" / "warped.nii.gz").get_fdata()
    lowest = volume[:, :, part].min()
    assert np.isclose(warped, lowest).mean() > 0.2
    assert (warped == 0).mean() < 0.01
    assert warped.min() >= lowest - 1e-3


@pytest.mark.parametrize("names", [["inference"], ["inference", "features"], ["inference", "propagate"]])
def test_several_pairs_a_batch_are_refused(phantoms, model, tmp_path, monkeypatch, names):
    """Else all but the first of each would be lost without a word."""
    scans = [tmp_path / f"{name}.nii.gz" for name in "abc"]
    for scan in scans:
        scan.write_bytes((phantoms / "imagesTr" / "phantom_000.nii.gz").read_bytes())
    label = str(phantoms / "labelsTr" / "phantom_000.nii.gz")
    given = {"fixed": str(scans[0]), "moving": [str(scan) for scan in scans[1:]]}
    if names[-1] != "inference":
        given = {"dataset_dir": [str(scan) for scan in scans[1:]]}
    if names[-1] == "propagate":
        given |= {"atlas": str(scans[0]), "atlas_label": label}
    given["dataloader#batch_size"] = 2
    expect_refusal("leave --dataloader#batch_size out", names, model, tmp_path / "out", monkeypatch, **given)


def test_scans_that_do_not_meet_are_refused():
    from monai.data import MetaTensor
    from scripts.matching import world_match

    names = [MetaTensor(torch.rand(1, 1, 4, 4, 4), meta={"filename_or_obj": [name]}) for name in ("a", "b")]
    far = {"displacement": torch.full((1, 3, 4, 4, 4), 99.0)}
    with pytest.raises(InputError, match="b does not overlap a"):
        world_match({"image": names[0], "moving": names[1], "pred": far})
