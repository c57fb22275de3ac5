# SPDX-License-Identifier: Apache-2.0
"""What was not drawn is left open: neither taken for background by a loss nor scored."""

import pytest
import torch
from monai.inferers import SimpleInferer
from monai.losses import DiceCELoss
from scripts.finetuning import LeaveOpenInferer, leave_open, score_drawn

LOSS = DiceCELoss(to_onehot_y=True, softmax=True, include_background=False, batch=True)


def logits(batch=2, classes=4):
    return 3 * torch.randn(batch, classes, 4, 5, 6, generator=torch.Generator().manual_seed(0))


def test_the_background_takes_up_the_probability_of_what_was_not_drawn():
    given = logits()
    drawn = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    before, after = given.softmax(dim=1), leave_open(given, drawn).softmax(dim=1)
    torch.testing.assert_close(after[0, 0], before[0, 0] + before[0, 2])
    torch.testing.assert_close(after[1, 0], before[1, :3].sum(dim=0))
    torch.testing.assert_close(after[:, 3], before[:, 3])
    assert not after[0, 2].any()
    assert not after[1, 1:3].any()


def test_where_all_is_drawn_nothing_changes():
    given = logits()
    torch.testing.assert_close(leave_open(given, torch.ones(2, 3)), given)


def test_rows_of_voxels_are_taken_too():
    given = torch.randn(7, 4)
    drawn = torch.ones(7, 3)
    drawn[2, 1] = 0
    found = leave_open(given, drawn).softmax(dim=1)
    assert found[2, 2] == 0
    torch.testing.assert_close(found[[0, 1, 3]], given.softmax(dim=1)[[0, 1, 3]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_structure_found_where_it_was_not_drawn_costs_nothing(dtype):
    """A map without structure 2, and a network that is sure of it everywhere: a loss of 0, and no gradient."""
    label = torch.zeros(1, 1, 4, 4, 4)
    label[..., 0] = 1
    sure = torch.zeros(1, 3, 4, 4, 4)
    sure[:, 1, ..., 0], sure[:, 2, ..., 1:] = 20, 20
    sure = sure.to(dtype).requires_grad_(True)
    drawn = torch.tensor([[1.0, 0.0]])
    loss = LOSS(leave_open(sure, drawn).float(), label)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-2)
    assert sure.grad.abs().max() < 1e-3
    assert sure.grad.isfinite().all()
    assert LOSS(sure.float(), label).item() > 5


def test_the_inferer_leaves_open_what_its_network_gives():
    given, drawn = logits(), torch.tensor([[0.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
    found = LeaveOpenInferer(SimpleInferer())(given, torch.nn.Identity(), drawn=drawn)
    torch.testing.assert_close(found, leave_open(given, drawn))


def test_what_a_map_does_not_show_is_not_scored():
    found, label = torch.tensor([0, 1, 2, 3, 3], dtype=torch.uint8), torch.tensor([0, 1, 1, 3, 0])
    assert score_drawn(found, label).tolist() == [0, 1, 0, 3, 3]
