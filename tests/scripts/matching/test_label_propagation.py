# SPDX-License-Identifier: Apache-2.0

"""Labels carried over from atlases: what is voted, and what no atlas sees."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import scripts.matching.write_match
import torch
from monai.data import MetaTensor
from scripts.matching import VoteLabels, label_probabilities
from scripts.spatial import resample

SIZE = (10, 8, 6)


def pair(label: torch.Tensor, offset: float = 0, votes: int = 1, similar: bool = True) -> dict:
    """A batch of a scan and an atlas on the same grid; the atlas's label map lies ``offset`` voxels further right."""
    image = torch.as_tensor(np.random.default_rng(0).random((1, 1, *SIZE)), dtype=torch.float32)
    affine = torch.eye(4, dtype=torch.float64)[None]
    shifted = affine.clone()
    shifted[0, 0, 3] = offset

    def scan(values: torch.Tensor, where: torch.Tensor = affine) -> MetaTensor:
        batch = MetaTensor(values, affine=where)
        batch.meta["filename_or_obj"] = ["folder/scan.nii.gz"]
        return batch

    pred = {
        "displacement": torch.zeros(1, 3, *SIZE),
        "local_displacement": torch.zeros(1, 3, *SIZE),
        "affine": torch.eye(4)[None, :3],
        "warped": image if similar else torch.zeros_like(image),
    }
    return {
        "image": scan(image),
        "moving": scan(image),
        "original_image": scan(image),
        "original_label": scan(label.reshape(1, 1, *SIZE).float(), shifted),
        "pred": pred,
        "votes": [votes],
        "result": ["scan"],
    }


@pytest.mark.parametrize("similar", [True, False])
def test_places_that_no_atlas_sees_are_background_and_counted(tmp_path, capsys, similar):
    """An atlas without background, three voxels off: the lowest of its codes used to fill what it does not cover."""
    label = torch.full(SIZE, 7)
    label[:, 4:] = 9
    found = VoteLabels(str(tmp_path))(pair(label, offset=3, similar=similar))
    written = np.asarray(nib.load(tmp_path / "scan.nii.gz").dataobj)
    assert not written[:3].any()
    assert set(np.unique(written[3:, :4])) == {7}
    assert set(np.unique(written[3:, 4:])) == {9}
    assert found["unseen_voxels"] == 3 * 8 * 6
    assert "no atlas reaches 30.0 %" in capsys.readouterr().out


def test_what_one_atlas_sees_is_seen(tmp_path, capsys):
    """Two atlases that lie apart cover the scan together, and nothing is said; the next scan starts anew."""
    vote = VoteLabels(str(tmp_path), vote="majority")
    first = vote(pair(torch.full(SIZE, 7), offset=5, votes=2))
    assert "unseen_voxels" not in first
    assert vote(pair(torch.full(SIZE, 8), offset=-5, votes=2))["unseen_voxels"] == 0
    written = np.asarray(nib.load(tmp_path / "scan.nii.gz").dataobj)
    assert set(np.unique(written[:5])) == {8}
    assert set(np.unique(written[5:])) == {7}
    assert capsys.readouterr().out == ""
    assert vote(pair(torch.full(SIZE, 9), offset=5))["unseen_voxels"] == 5 * 8 * 6


def test_probabilities_find_their_positions_once(monkeypatch):
    """However many codes there are; the values are those of each code resampled by itself."""
    label = torch.as_tensor(np.random.default_rng(0).integers(0, 12, (1, *SIZE)))
    where = (torch.eye(4), torch.full((3, *SIZE), 0.3), torch.eye(4))
    codes, calls = torch.unique(label), []
    positions = scripts.matching.write_match.sampling_positions

    def counted(*args):
        calls.append(args)
        return positions(*args)

    monkeypatch.setattr(scripts.matching.write_match, "sampling_positions", counted)
    shares = label_probabilities(label, codes, *where)
    assert len(calls) == 1
    expected = torch.cat([resample((label == code).float(), *where) for code in codes])
    torch.testing.assert_close(shares, expected)
