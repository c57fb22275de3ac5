# SPDX-License-Identifier: Apache-2.0
"""The batch of a step: all of it goes to the device but what the host decides by."""

from __future__ import annotations

import torch
from scripts.training import PrepareKnownMaps


def test_which_maps_are_known_stays_with_the_host():
    images = torch.zeros(2, 1, 4, 4, 4)
    batch = {"image": images, "label": images, "moving": images, "known": torch.tensor([0.0, 1.0])}
    batch["known_displacement"] = torch.full((2, 3, 4, 4, 4), 0.5)
    image, label, others, named = PrepareKnownMaps(["moving", "known"])(batch, "meta")
    assert image.device.type == label.device.type == others[0].device.type == "meta"
    assert others[1][0] == 0
    assert others[1][1] != 0
    assert PrepareKnownMaps(["moving", "known"])(batch, "cpu")[2][1] == others[1]
    assert named == {}
    assert isinstance(batch["known"], torch.Tensor)


def test_a_network_that_is_told_of_no_known_map_gets_none():
    images = torch.zeros(2, 1, 4, 4, 4)
    assert len(PrepareKnownMaps(["moving"])({"image": images, "label": images, "moving": images}, "cpu")[2]) == 1
