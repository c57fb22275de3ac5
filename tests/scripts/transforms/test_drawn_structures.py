# SPDX-License-Identifier: Apache-2.0
"""Which structures a label map shows, before it is cropped."""

import pytest
import torch
from monai.data import MetaTensor
from scripts.transforms import DrawnStructuresd


@pytest.mark.parametrize(("partial", "drawn"), [(False, [1, 1, 1]), (True, [1, 0, 1])])
def test_those_of_the_map_or_all(partial, drawn):
    label = MetaTensor(torch.zeros(1, 4, 4, 4))
    label[0, 0, 0, 0], label[0, 1, 0, 0] = 1, 3
    found = DrawnStructuresd(count=3, partial=partial)({"label": label, "image": 7})
    assert found["drawn"].tolist() == drawn
    assert found["label"] is label
    assert found["image"] == 7
