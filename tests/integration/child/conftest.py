# SPDX-License-Identifier: Apache-2.0
"""A data set of blobs, and the child bundle made from it, moved elsewhere."""

from __future__ import annotations

import json

import make_child
import nibabel as nib
import numpy as np
import pytest

NAME = "blob_mr_segmentation"


@pytest.fixture(scope="session")
def dataset(tmp_path_factory, make_cohort):
    """Eight subjects; label code 7 in the files, and geometry that is neither RAS nor 1 mm."""
    folder = make_cohort(tmp_path_factory.mktemp("data"), subjects=8)
    affine = np.array([[0, -1.2, 0, 5], [1.2, 0, 0, -3], [0, 0, 1.5, 2], [0, 0, 0, 1]])
    for path in folder.glob("*Tr/*.nii.gz"):
        volume = np.asarray(nib.load(path).dataobj)
        scaled = volume * np.uint8(7) if path.parent.name == "labelsTr" else volume
        path.unlink()
        nib.save(nib.Nifti1Image(scaled, affine), path)
    described = json.loads((folder / "dataset.json").read_text())
    described |= {"modality": {"0": "MRI"}, "labels": {"0": "background", "7": "blob"}, "licence": "none needed"}
    (folder / "dataset.json").write_text(json.dumps(described))
    return folder


@pytest.fixture(scope="session")
def bundle(dataset, tmp_path_factory):
    out = tmp_path_factory.mktemp("elsewhere")
    assert make_child.main([str(dataset), NAME, "--out", str(out), "--features", "4", "8"]) == 0
    return out / NAME
