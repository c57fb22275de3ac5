# SPDX-License-Identifier: Apache-2.0

"""Label codes of files, and class numbers."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from scripts.transforms import CodesToClassesd, output_codes

CLASSES = [{"name": "cord", "codes": [3]}, {"name": "bone", "codes": [1, 2]}, {"name": "heart", "codes": [420, 421]}]


@pytest.fixture
def label() -> MetaTensor:
    return MetaTensor(torch.tensor([[[[0, 1, 2, 3, 9, 420, 421]]]], dtype=torch.float32), affine=2 * torch.eye(4))


def test_codes_become_class_numbers(label: MetaTensor) -> None:
    step = CodesToClassesd("label", CLASSES, ignored_codes=[9])
    result = step({"label": label, "classes": [1, 2, 3]})["label"]
    assert result.flatten().tolist() == [0, 2, 2, 1, 0, 3, 3]
    assert torch.equal(result.affine, label.affine)


def test_labels_from_elsewhere_are_numbered_already(label: MetaTensor) -> None:
    """1 is a class number there, and the code of another class in the data set's files."""
    result = CodesToClassesd("label", CLASSES)({"label": label})["label"]
    assert torch.equal(result, label)


def test_what_is_written() -> None:
    assert output_codes(CLASSES) == [0, 3, 1, 420]
    assert output_codes([{"name": "ventricles", "codes": [4, 11], "value": 1}]) == [0, 1]
