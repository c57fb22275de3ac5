# SPDX-License-Identifier: Apache-2.0

"""The picture at the head of the README: its planes, its colours, its size; a whole run of an untrained network."""

from __future__ import annotations

from pathlib import Path

import headline
import numpy as np
import pytest
import torch
from PIL import Image
from scripts.errors import InputError


def test_axes_are_right_anterior_superior():
    volume = torch.arange(24.0).reshape(1, 2, 3, 4)
    affine = torch.tensor([[0, 0, 2.0, 0], [-1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 0, 1]])
    found = headline.along_ras(volume, affine)
    np.testing.assert_array_equal(found, np.transpose(volume[0].numpy()[::-1], (2, 0, 1)))


def test_the_plane_goes_through_the_small_structures():
    label = np.zeros((30, 40, 30))
    label[5:25, 5:35, 5:25] = 1
    label[10:13, 30:33, 10:13] = 2
    place, part = headline.shown_plane(label)
    assert place == 31
    assert part == (slice(0, 30), slice(0, 30))
    shown = headline.outlined(np.random.default_rng(0).random(label.shape), label, label, enlarged=2)
    assert shown.shape == (60, 60, 3)
    for code in (1, 2):
        assert (shown == headline.colours_of(np.array([code]))).all(axis=-1).any()


def test_a_whole_run(cohort, tmp_path, monkeypatch):
    """Held-back scans get the labels of one that was seen, then others that were; the picture is small, in colours."""
    scans = headline.labelled_scans(cohort, None, "all")
    parts = {"held_back": scans[:2], "choosing": scans[2:4]}
    monkeypatch.setattr(headline, "labelled_scans", lambda _, __, part: parts[part])
    carry, carried = headline.carry, []
    monkeypatch.setattr(headline, "carry", lambda *given: carried.append(given) or carry(*given))
    structures = {"groups": [[1]], "names": ["shape"]}
    monkeypatch.setattr(headline, "described_structures", lambda *_: structures)
    path = tmp_path / "headline.png"
    small = {"pixdim": "[2,2,2]", "spatial_size": "[16,16,16]", "features": "[4,8,16]", "load_pretrain": "False"}
    given = [part for name, value in small.items() for part in (f"--{name}", value)]
    headline.main(["--data", str(cohort), "--out", str(path), *given])
    assert [(Path(scan.path).name, seen) for _, _, scan, seen in carried] == [
        (Path(scans[number]["image"]).name, seen) for number, seen in ((0, False), (1, False), (3, True))
    ]
    assert path.stat().st_size < headline.LARGEST
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert (np.ptp(pixels, axis=2) > 60).any()
    with pytest.raises(InputError, match="options are --id value"):
        headline.main(["--data", str(cohort), "--out", str(path), "--pixdim"])
