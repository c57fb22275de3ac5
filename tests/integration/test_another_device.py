# SPDX-License-Identifier: Apache-2.0
"""
Matching and training where the network is not on the CPU, on which scans are read and written: no tensor of one device
meets one of another.
"""

from __future__ import annotations

import csv
import sys

import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import REPOSITORY, TINY, make_cohort
from monai.bundle import ConfigParser, ConfigWorkflow
from pretended_device import THERE, PretendedDevice, lies_there
from scripts.losses import place_contrast

BUNDLE = REPOSITORY / "bundle"


def drawn_there(count: int, generator: torch.Generator) -> torch.Tensor:
    """A generator of a device that is not there cannot be had."""
    return torch.rand(count, generator=generator, device=THERE)


@pytest.fixture
def on_device(monkeypatch: pytest.MonkeyPatch, restored_process: None):
    """Run a workflow on the pretended device; what it asserts of the network then."""
    generator = torch.Generator
    monkeypatch.setattr(torch, "Generator", lambda device=None: generator())
    monkeypatch.setattr(place_contrast, "drawn", drawn_there)

    def run(workflow: ConfigWorkflow) -> None:
        workflow.parser["device"] = THERE
        with PretendedDevice():
            workflow.initialize()
            workflow.run()
            workflow.finalize()
            network = workflow.parser.get_parsed_content("network")
            assert all(map(lies_there, network.parameters()))

    return run


def test_tensors_of_two_devices_do_not_mix():
    here = torch.ones(3)
    with PretendedDevice():
        there = here.to(THERE)
        assert there.device == (there * 2).device == torch.zeros_like(there).device == THERE
        assert here.device == there.cpu().device == torch.device("cpu")
        with pytest.raises(RuntimeError, match="tensors of two devices in add"):
            here + there
        with pytest.raises(TypeError, match="to numpy"):
            np.asarray(there)
        assert (there + torch.tensor(1.0))[torch.tensor([0])].tolist() == [2.0]


@pytest.mark.parametrize("options", [{}, {"refine": 2}])
def test_a_match_down_to_the_scans_own_voxels(tmp_path, monkeypatch, on_device, options):
    monkeypatch.setattr(sys, "path", list(sys.path))
    scans = make_cohort(tmp_path / "scans", 2) / "imagesTr"
    parser = ConfigParser(ConfigParser.load_config_file(str(BUNDLE / "configs" / "train.json")))
    parser.update({"features": TINY["features"], "pixdim": [2, 2, 2], "bundle_root": str(BUNDLE)})
    torch.manual_seed(0)
    torch.save(parser.get_parsed_content("network_def").state_dict(), tmp_path / "model.pt")
    workflow = ConfigWorkflow(
        config_file=str(BUNDLE / "configs" / "inference.json"),
        workflow_type="infer",
        logging_file=False,
        bundle_root=str(BUNDLE),
        fixed=str(scans / "subject_0.nii.gz"),
        moving=str(scans / "subject_1.nii.gz"),
        moving_label=str(scans.parent / "labelsTr" / "subject_1.nii.gz"),
        model=str(tmp_path / "model.pt"),
        output_dir=str(tmp_path / "out"),
        features=TINY["features"],
        pixdim=[2, 2, 2],
        spatial_size=[16, 16, 16],
        **options,
    )
    on_device(workflow)
    warped = nib.load(tmp_path / "out" / "subject_1_to_subject_0" / "warped.nii.gz")
    assert np.isfinite(warped.get_fdata()).all()
    assert (tmp_path / "out" / "matches.csv").is_file()


def test_a_training_by_known_maps(tmp_path, workflow, on_device):
    one_step = {"epochs": 1, "epoch_length": 1, "known_share": 1.0, "picture_interval": 1}
    made = workflow(make_cohort(tmp_path / "scans", 3), tmp_path / "out", **one_step)
    on_device(made)
    with (tmp_path / "out" / "history.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert float(row["places"]) > 0
    assert np.isfinite(float(row["train_loss"]))
