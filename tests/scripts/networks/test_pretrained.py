# SPDX-License-Identifier: Apache-2.0

"""One line to a backbone and to the features of a scan; weights for several channels."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from geometries import write_series
from monai.bundle import ConfigParser
from scripts.errors import InputError
from scripts.files import load_file
from scripts.networks import NetworkBackbone, UNetBackbone, pretrained, repeat_stem
from support import write_nifti

SETTINGS = {"features": [4, 8, 12], "pixdim": [2.0, 2.0, 2.0], "spatial_size": [20, 24, 28]}
BUNDLE = pretrained.BUNDLE


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a training run, of random weights."""
    parser = ConfigParser()
    parser.read_config(str(BUNDLE / "configs" / "inference.json"))
    parser.update(SETTINGS)
    torch.manual_seed(0)
    folder = tmp_path / "run"
    folder.mkdir()
    torch.save(parser.get_parsed_content("network_def").state_dict(), folder / "model.pt")
    (folder / "settings.json").write_text(json.dumps(SETTINGS))
    return folder


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """40 x 36 x 30 voxels of 1 mm, stored towards left, posterior, superior."""
    volume = np.zeros((40, 36, 30), np.float32)
    volume[4:10, 6:12, 8:14] = 100
    write_nifti(
        tmp_path / "scan.nii.gz", volume, np.array([[-1.0, 0, 0, 9], [0, -1, 0, 7], [0, 0, 1, -5], [0, 0, 0, 1]])
    )
    return tmp_path / "scan.nii.gz"


def as_zip(run: Path) -> Path:
    """The run's model as the bundle that a model zoo offers."""
    bundle = run.parent / "zoo" / "tiny"
    (bundle / "configs").mkdir(parents=True)
    (bundle / "models").mkdir()
    config = json.loads((BUNDLE / "configs" / "inference.json").read_text())
    (bundle / "configs" / "inference.json").write_text(json.dumps({**config, **SETTINGS}))
    shutil.copy(run / "model.pt", bundle / "models" / "model.pt")
    return Path(shutil.make_archive(str(run.parent / "tiny"), "zip", bundle.parent, "tiny"))


@pytest.mark.parametrize("kind", ["run", "file", "zip", "bundle", "name"])
def test_a_backbone_from_wherever_it_lies(run, scan, kind, monkeypatch):
    archive = as_zip(run)
    monkeypatch.setattr(
        pretrained,
        "download",
        lambda name, bundle_dir: shutil.copytree(archive.parent / "zoo" / name, Path(bundle_dir) / name),
    )
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(run.parent / "hub"))
    source = {
        "run": run,
        "file": run / "model.pt",
        "zip": archive,
        "bundle": run.parent / "zoo" / "tiny",
        "name": "tiny",
    }[kind]
    backbone = UNetBackbone.from_pretrained(str(source))
    assert backbone.features == (4, 8, 12)
    assert not backbone.training
    weights = load_file(run / "model.pt")
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, weights[f"backbone.{name}"])
    assert backbone.embed(scan).local_features.shape == (4, 20, 24, 28)


@pytest.mark.parametrize("source", ["model.pt", "."])
def test_a_backbone_of_the_folder_one_is_in(run, source, monkeypatch):
    as_zip(run)
    for folder in (run, run.parent / "zoo" / "tiny" / "models"):
        monkeypatch.chdir(folder)
        assert UNetBackbone.from_pretrained(source).features == (4, 8, 12)


def test_the_shipped_weights():
    backbone = UNetBackbone.from_pretrained(BUNDLE)
    weights = load_file(BUNDLE / "models" / "model.pt")
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, weights[f"backbone.{name}"])


def test_features_know_where_they_lie(run, scan):
    """A spot of the scan is found at the same millimetres in f^l, and in f^g to within its large voxels."""
    backbone = UNetBackbone.from_pretrained(run)
    stored = nib.load(scan)
    spot = stored.affine @ [6.5, 8.5, 10.5, 1]
    found = backbone.embed(scan)
    empty = scan.with_name("empty.nii.gz")
    volume = np.zeros(stored.shape, np.float32)
    volume[0, 0, 0] = 100  # a constant scan has no percentiles
    nib.save(nib.Nifti1Image(volume, stored.affine), empty)
    for features, reference, tolerance in zip(found, backbone.embed(empty), (6.0, 3.0), strict=True):
        change = (features - reference).as_tensor().square().sum(0)
        place = np.argwhere(change.numpy() > 0.5 * change.numpy().max()).mean(axis=0)
        assert np.abs(features.affine.numpy()[:3] @ [*place, 1] - spot[:3]).max() < tolerance


@pytest.mark.parametrize(("size", "coarse"), [((20, 24, 28), (5, 6, 7)), ((18, 21, 25), (5, 6, 7))])
def test_large_voxels_cover_the_padded_image(size, coarse):
    matrix = pretrained._coarse(list(size), list(coarse))
    for axis, (n, m) in enumerate(zip(size, coarse, strict=True)):
        before = (4 * m - n) // 2
        first, last = matrix[axis, axis] * -0.5 + matrix[axis, 3], matrix[axis, axis] * (m - 0.5) + matrix[axis, 3]
        assert first == -0.5 - before  # the edges of the image and its padding
        assert last == 4 * m - 0.5 - before


def test_mistakes_get_one_line(run, scan, tmp_path, monkeypatch):
    def offline(**_):
        raise OSError("no route to host")

    monkeypatch.setattr(pretrained, "download", offline)
    with pytest.raises(InputError, match=r"nothing.zip does not exist"):
        UNetBackbone.from_pretrained("nothing.zip")
    with pytest.raises(InputError, match=r"nothing is neither .* could be downloaded \(no route to host\)"):
        UNetBackbone.from_pretrained("nothing")
    with pytest.raises(InputError, match=r"holds no model.pt"):
        UNetBackbone.from_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"holds a UNetBackbone: call UNetBackbone instead"):
        NetworkBackbone.from_pretrained(run)
    (tmp_path / "broken.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"broken.zip cannot be unpacked"):
        UNetBackbone.from_pretrained(tmp_path / "broken.zip")
    backbone = UNetBackbone.from_pretrained(run)
    with pytest.raises(InputError, match=r"none.nii.gz does not exist"):
        backbone.embed("none.nii.gz")
    write_nifti(tmp_path / "two.nii.gz", np.ones((8, 8, 8, 2), np.float32))
    with pytest.raises(InputError, match=r"two.nii.gz holds 2 volumes or colours; store one scan a file"):
        backbone.embed(tmp_path / "two.nii.gz")
    write_nifti(tmp_path / "flat.nii.gz", np.arange(64.0, dtype=np.float32).reshape(8, 8))
    with pytest.raises(InputError, match=r"flat.nii.gz has 2 axes; store its slices as one volume"):
        backbone.embed(tmp_path / "flat.nii.gz")
    write_nifti(tmp_path / "flat.nii.gz", np.arange(512.0, dtype=np.float32).reshape(8, 8, 8))
    assert backbone.embed(tmp_path / "flat.nii.gz").local_features.isfinite().all()
    for name in ("T1", "T2"):
        write_series(tmp_path / "disc", np.arange(512).reshape(8, 8, 8), name=name + "_{}.dcm", SeriesDescription=name)
    with pytest.raises(InputError, match=r"holds 2 series: .*; name one, as .*T1"):
        backbone.embed(tmp_path / "disc")
    assert backbone.embed(tmp_path / "disc" / "T1").local_features.isfinite().all()
    with pytest.raises(InputError, match="load it by from_pretrained"):
        UNetBackbone(features=(4, 8)).embed(scan)
    kept = (run / "settings.json").read_text()
    for spoilt in (kept[:-5], "\ufeff" + kept):
        (run / "settings.json").write_text(spoilt, encoding="utf-8")
        with pytest.raises(InputError, match=r"settings.json cannot be read .*bring back what the training wrote"):
            UNetBackbone.from_pretrained(run)
    (run / "settings.json").write_text(kept)
    assert UNetBackbone.from_pretrained(run)
    (run / "settings.json").unlink()
    with pytest.raises(InputError, match="how scans are prepared is not known"):
        UNetBackbone.from_pretrained(run)


class TestSeveralChannels:
    def test_a_repeated_image_gives_the_features_of_the_image(self):
        torch.manual_seed(0)
        one, four = UNetBackbone(3, 1, (4, 8)).eval(), UNetBackbone(3, 4, (4, 8)).eval()
        four.load_state_dict(repeat_stem(one.state_dict(), one.stems, 4))
        image = torch.rand(1, 1, 16, 16, 16)
        with torch.no_grad():
            for ours, theirs in zip(four(image.repeat(1, 4, 1, 1, 1)), one(image), strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)

    def test_other_numbers_are_refused(self):
        weights = UNetBackbone(3, 2, (4, 8)).state_dict()
        assert torch.equal(
            repeat_stem(weights, UNetBackbone.stems, 2)[UNetBackbone.stems[0]], weights[UNetBackbone.stems[0]]
        )
        with pytest.raises(InputError, match="weights for images of 2 channels cannot be used for 4"):
            repeat_stem(weights, UNetBackbone.stems, 4)
