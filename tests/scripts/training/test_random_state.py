# SPDX-License-Identifier: Apache-2.0

"""Every random number generator goes on where it was."""

from __future__ import annotations

import random

import numpy as np
import torch
from scripts.files import load_file, save_atomically
from scripts.training import random_state, restore_random_state


def test_random_state_goes_through_a_file(tmp_path):
    """Every generator draws on as if nothing had happened."""

    def draw() -> list:
        return [torch.rand(3).tolist(), np.random.normal(size=3).tolist(), random.random(), random.gauss(0, 1)]

    draw()  # leaves a second Gaussian waiting in numpy and python
    save_atomically(random_state(), tmp_path / "state.pt")
    expected = draw()
    assert draw() != expected
    restore_random_state(load_file(tmp_path / "state.pt"))
    assert draw() == expected
