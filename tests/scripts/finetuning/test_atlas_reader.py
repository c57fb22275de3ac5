# SPDX-License-Identifier: Apache-2.0

"""The linear layer that is fitted to the labelled scans themselves: what it reads, and of which codes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.networks.nets import SegResNet
from scripts.errors import InputError
from scripts.finetuning import AtlasReader
from scripts.networks import NetworkBackbone, UNetBackbone

SIZE = (12, 10, 8)


def read(paths: dict) -> dict:
    """In place of the preprocessing: a bright cube, labelled 500 at the voxels of its own grid, a shade of 7 beside."""
    label = torch.zeros(1, *SIZE)
    label[:, 3:7, 3:7, 2:6], label[:, 8:11, 3:7, 2:6] = 500, 7
    noise = torch.as_tensor(np.random.default_rng(len(paths["image"])).random((1, *SIZE)), dtype=torch.float32)
    image = (label == 500) * 1.0 + (label == 7) * 0.5 + 0.05 * noise
    if paths["label"] == "empty":
        label = torch.zeros(1, *SIZE)
    elif paths["label"].startswith("only "):
        label = torch.where(label == int(paths["label"][5:]), label, torch.zeros_like(label))
    return {"image": MetaTensor(image, affine=torch.eye(4)), "original_label": MetaTensor(label, affine=torch.eye(4))}


def unet() -> UNetBackbone:
    return UNetBackbone(features=(8, 16, 16))


def segresnet() -> NetworkBackbone:
    network = SegResNet(init_filters=8, blocks_down=[1, 1, 1], blocks_up=[1, 1])
    levels = ["down_layers.0", "down_layers.1", "up_layers.0"]
    return NetworkBackbone(network, "down_layers.2", "conv_final.2", levels, multiple=4)


def reader(*labels: str, backbone: Any = unet, partial_labels: bool = False) -> AtlasReader:
    torch.manual_seed(0)
    pairs = [{"image": f"scan_{n}", "moving": label, "label": label} for n in range(2) for label in labels]
    return AtlasReader(backbone(), pairs, read, levels=3, partial_labels=partial_labels)


@pytest.mark.parametrize("backbone", [unet, segresnet])
def test_it_finds_in_a_scan_what_the_atlases_show(backbone: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Codes are those of the label maps; each atlas is read once, whatever the number of scans; nothing is refitted."""
    asked = reader("one", "other", backbone=backbone)
    item = read({"image": "a new one", "label": "l"})
    for _ in range(2):
        codes, shares = asked(item["image"][None])
    assert codes == [0, 7, 500]
    assert shares.shape == (3, *SIZE)
    torch.testing.assert_close(shares.sum(dim=0), torch.ones(SIZE))
    found = torch.as_tensor(codes)[shares.argmax(dim=0)]
    assert (found == item["original_label"][0]).float().mean() > 0.95
    assert capsys.readouterr().out.count("fitted to 2 labelled scan(s)") == 1


@pytest.mark.parametrize("partial", [True, False])
def test_what_was_not_drawn_in_an_atlas_is_left_open(partial: bool) -> None:
    """Each of two atlases shows one structure of two. Where that is not said, the layer is unsure of both."""
    asked = reader("only 7", "only 500", partial_labels=partial)
    item = read({"image": "a new one", "label": "l"})
    codes, shares = asked(item["image"][None])
    assert codes == [0, 7, 500]
    truth = item["original_label"][0]
    sure = torch.stack([shares[codes.index(code)][truth == code].mean() for code in (7, 500)])
    assert (sure > 0.9).all() if partial else (sure < 0.9).all()
    assert not partial or (torch.as_tensor(codes)[shares.argmax(dim=0)] == truth).float().mean() > 0.95


def test_label_maps_without_any_label_are_refused() -> None:
    with pytest.raises(InputError, match="all labels are background"):
        reader("empty")(torch.rand(1, 1, *SIZE))


@pytest.mark.parametrize("levels", [0, 1.5])
def test_levels_are_checked_before_anything_is_matched(levels: float) -> None:
    with pytest.raises(InputError, match="decoder_levels"):
        AtlasReader(UNetBackbone(features=(8, 16, 16)), [], read, levels=levels)  # type: ignore[arg-type]
