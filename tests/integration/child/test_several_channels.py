# SPDX-License-Identifier: Apache-2.0
"""A child of scans of two contrasts, from nnU-Net's layout and the Decathlon's."""

from __future__ import annotations

import json
import shutil

import make_child
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from scripts.files import load_file
from scripts.networks import UNetBackbone
from support import run_bundle, write_nifti

NAME = "blob_mr_segmentation"


class TestSeveralChannels:
    """Two contrasts: in files of their own as nnU-Net has them, or in one file as the Decathlon has them."""

    @pytest.fixture(scope="class")
    def both(self, dataset, tmp_path_factory):
        """The same cases in both layouts: the scan, and the scan upside down in another scale."""
        nnunet, decathlon = (tmp_path_factory.mktemp(name) for name in ("nnunet", "decathlon"))
        for path in sorted((dataset / "imagesTr").iterdir()):
            scan = nib.load(path)
            contrasts = [scan.get_fdata(dtype=np.float32), 5 - 3 * scan.get_fdata(dtype=np.float32)]
            case = path.name.removesuffix(".nii.gz")
            for number, volume in enumerate(contrasts):
                write_nifti(nnunet / "imagesTr" / f"{case}_{number:04d}.nii.gz", volume, scan.affine)
            write_nifti(decathlon / "imagesTr" / path.name, np.stack(contrasts, axis=-1), scan.affine)
            for folder in (nnunet, decathlon):
                (folder / "labelsTr").mkdir(exist_ok=True)
                shutil.copy(dataset / "labelsTr" / path.name, folder / "labelsTr")
        described = json.loads((dataset / "dataset.json").read_text())
        labels = {"background": 0, "blob": 7}
        told = {"channel_names": {"0": "T1", "1": "T2"}, "labels": labels, "file_ending": ".nii.gz", "numTraining": 8}
        (nnunet / "dataset.json").write_text(json.dumps(told))
        (decathlon / "dataset.json").write_text(json.dumps({**described, "modality": {"0": "T1", "1": "T2"}}))
        return nnunet, decathlon

    @pytest.fixture(scope="class")
    def children(self, both, tmp_path_factory):
        start = tmp_path_factory.mktemp("start") / "model.pt"
        torch.manual_seed(0)
        torch.save(UNetBackbone(features=(4, 8)).state_dict(), start)
        out = [tmp_path_factory.mktemp("child") for _ in both]
        for folder, where in zip(both, out, strict=True):
            options = ["--out", str(where), "--features", "4", "8", "--start", str(start)]
            assert make_child.main([str(folder), NAME, *options]) == 0
        return [where / NAME for where in out]

    @staticmethod
    def parsed(child, **settings):
        parser = ConfigParser()
        parser.read_config(str(child / "configs" / "inference.json"))
        parser.update({"bundle_root": str(child), **settings})
        return parser

    def test_both_layouts_give_the_same_child_and_image(self, both, children):
        read = []
        for folder, child in zip(both, children, strict=True):
            parser = self.parsed(child, dataset_dir=str(folder), output_dir=None)
            assert parser["in_channels"] == 2
            data = parser.get_parsed_content("dataset")
            assert len(data) == 8
            read.append(data[3]["image"])
            format_ = json.loads((child / "configs" / "metadata.json").read_text())["network_data_format"]
            assert format_["inputs"]["image"]["channel_def"] == {"0": "T1", "1": "T2"}
        assert torch.equal(*read)
        assert torch.allclose(read[0][0], 1 - read[0][1], atol=1e-5)  # each channel is scaled by itself

    def test_a_repeated_image_gives_what_one_channel_gives(self, children, bundle, dataset, tmp_path):
        scan = nib.load(dataset / "imagesTr" / "subject_2.nii.gz")
        volume = scan.get_fdata(dtype=np.float32)
        write_nifti(tmp_path / "twice.nii.gz", np.stack([volume, volume], axis=-1), scan.affine)
        several, one = self.parsed(children[1]), self.parsed(bundle)
        network = several.get_parsed_content("network_def")
        network.load_state_dict(load_file(children[1] / "models" / "model.pt"))
        torch.nn.init.normal_(network.head.weight)  # it has learned nothing
        single = one.get_parsed_content("network_def")
        torch.manual_seed(0)
        single.backbone.load_state_dict(UNetBackbone(features=(4, 8)).state_dict())  # the one that it started with
        single.head.load_state_dict(network.head.state_dict())
        images = [
            parser.get_parsed_content("preprocessing")({"image": str(path)})["image"][None]
            for parser, path in ((several, tmp_path / "twice.nii.gz"), (one, dataset / "imagesTr" / "subject_2.nii.gz"))
        ]
        assert [image.shape[1] for image in images] == [2, 1]
        with torch.no_grad():
            found, wanted = network.eval()(images[0]), single.eval()(images[1])
        assert torch.allclose(found.as_tensor(), wanted.as_tensor(), atol=1e-5)

    def test_it_trains_and_infers(self, both, children, tmp_path):
        for folder, child, image in zip(both, children, ("subject_0_0000", "subject_0"), strict=True):
            run = tmp_path / folder.name
            start = child / "models" / "model.pt"
            few = {"epochs": 1, "epoch_length": 1, "pretrained": start}
            done = run_bundle(child, "train", dataset_dir=folder, output_dir=run, **few)
            assert done.returncode == 0, done.stdout + done.stderr
            path = folder / "imagesTr" / f"{image}.nii.gz"
            done = run_bundle(child, "inference", image=path, model=run / "model.pt", output_dir=run / "predicted")
            assert done.returncode == 0, done.stdout + done.stderr
            (written,) = (run / "predicted").glob("*.nii.gz")
            assert nib.load(written).shape == (24, 24, 24)
            assert set(np.unique(nib.load(written).dataobj)) <= {0, 7}

    def test_a_missing_channel_is_named(self, both, tmp_path, capsys):
        """The plan leaves such a scan out, with a line; a training refuses it."""
        for folder, path, what in (
            (both[0], "subject_3_0001.nii.gz", "has a further channel"),
            (both[1], "subject_3.nii.gz", "holds 1 of 2 channels"),
        ):
            broken = shutil.copytree(folder, tmp_path / folder.name)
            (broken / "imagesTr" / path).unlink()
            if folder == both[1]:
                write_nifti(broken / "imagesTr" / path, np.random.default_rng(0).normal(size=(24, 24, 24)))
            assert make_child.main([str(broken), NAME, "--out", str(tmp_path / folder.name / "out")]) == 0
            said = capsys.readouterr().out
            assert "left out 1 of 8 scans" in said
            assert what in said
            assert "subject_3" in said
