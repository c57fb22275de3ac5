# SPDX-License-Identifier: Apache-2.0

"""Freed memory is kept: a tensor for which there is room touches no new page."""

from __future__ import annotations

import subprocess
import sys

import pytest
from scripts.memory import keep_freed_memory

FAULTS = """
import resource, sys
import torch
from scripts.memory import keep_freed_memory

kept = sys.argv[1] == "keep" and keep_freed_memory()
for mebibytes in (256, 64):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensor = torch.zeros(mebibytes, 512, 512).add_(1)
    del tensor
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(int(kept), faults)
"""


def faults(repository, how):
    """Whether memory is kept, and how many new pages a tensor of 64 MiB touched after a larger one was freed."""
    run = [sys.executable, "-c", FAULTS, how]
    done = subprocess.run(run, cwd=repository / "bundle", capture_output=True, text=True, check=True)
    kept, count = map(int, done.stdout.split())
    return bool(kept), count


def test_a_tensor_takes_the_memory_of_one_before(repository):
    kept, after = faults(repository, "keep")
    _, plain = faults(repository, "as it is")
    if not kept or plain < 1000:
        pytest.skip("the C library has no mallopt, or keeps memory by itself, or the system counts no page faults")
    assert after < plain / 100


def test_nothing_is_done_for_other_devices():
    assert not keep_freed_memory("cuda")
