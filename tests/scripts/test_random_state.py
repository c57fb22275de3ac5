# Copyright (c) GVSL bundle contributors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Every random number generator goes on where it was."""

from __future__ import annotations

import random

import numpy as np
import torch
from scripts.checkpoints import load_file, save_atomically
from scripts.random_state import random_state, restore_random_state


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
