# SPDX-License-Identifier: Apache-2.0
"""Memory that the C library keeps for the next tensor."""

from __future__ import annotations

import ctypes
import sys

import torch

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
KEPT = 2**31 - 1


def keep_freed_memory(device: torch.device | str = "cpu") -> bool:
    """
    Have glibc keep freed memory, up to 2 GiB, for the tensors to come.

    As it is, every tensor above 32 MiB is asked of the system and given back, and the first touch of each of its pages
    is a fault: a quarter of the time of a match of large scans on a CPU. PyTorch has an allocator that keeps memory for
    GPUs only.

    Args:
        device: that computes; nothing is done for any but a CPU.

    Returns:
        whether it is done: other C libraries than glibc have no ``mallopt``.
    """
    if sys.platform != "linux" or torch.device(device).type != "cpu":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, KEPT))
