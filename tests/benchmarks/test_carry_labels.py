# SPDX-License-Identifier: Apache-2.0

"""Which scans get labels from several atlases: of subjects that the weights were not trained on."""

from __future__ import annotations

import json
from pathlib import Path

import carry_labels
import numpy as np
from scripts.data import fingerprint
from support import write_nifti


def test_scans_of_subjects_that_were_trained_on_are_atlases_alone(tmp_path, monkeypatch):
    """Two files a subject; that one of them was trained on is enough."""
    folder = tmp_path / "set"
    files = [f"hippocampus_{number:03d}.nii.gz" for number in range(1, 17)]
    values = np.arange(64, dtype=np.uint8).reshape(4, 4, 4)
    for number, name in enumerate(files):
        for part in ("imagesTr", "labelsTr"):
            write_nifti(folder / part / name, values % 9 + np.uint8(number))
    training = [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in files]
    content = {"name": "set", "modality": {"0": "MR"}, "labels": {"0": "background", "1": "part"}, "training": training}
    (folder / "dataset.json").write_text(json.dumps(content))
    seen = [fingerprint(str(folder / "imagesTr" / files[number - 1])) for number in (1, 4, 5, 6, 15)]
    model = tmp_path / "run" / "model.pt"
    model.parent.mkdir()
    (model.parent / "settings.json").write_text(json.dumps({"trained_on": seen}))
    monkeypatch.setattr(carry_labels, "MODEL", str(model))
    scans, atlases = carry_labels.chosen("hippocampus", folder, 12, 7, tmp_path)
    assert sorted(Path(scan["image"]).name for scan in scans) == [files[number - 1] for number in (7, 9, 11, 13)]
    assert sorted(Path(scan["image"]).name for scan in atlases) == [files[number - 1] for number in (1, 3, 5, 15)]
