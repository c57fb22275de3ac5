# SPDX-License-Identifier: Apache-2.0
"""Images of several channels: one file of several volumes, or a file a channel (``case_0000``, ``case_0001``, ...)."""

from __future__ import annotations

import os
import re

NUMBERED = re.compile(r"(.+_)(\d{4})(\.[A-Za-z.]+)")
"""Path of a channel's file, as nnU-Net names it."""


def channel_files(path: str, channels: int) -> list[str]:
    """
    The files of an image.

    Args:
        path: of the image: a file of all channels, or the first of several, ``case_0000.nii.gz``.
        channels: of the image.

    Returns:
        the path alone, or those of all channels, which need not exist.
    """
    named = NUMBERED.fullmatch(path)
    if channels == 1 or named is None or named[2] != "0000":
        return [path]
    return [f"{named[1]}{number:04d}{named[3]}" for number in range(channels)]


def is_further_channel(path: str) -> bool:
    """Whether a file holds a channel of an image whose first one lies beside it."""
    named = NUMBERED.fullmatch(path)
    return named is not None and named[2] != "0000" and os.path.exists(f"{named[1]}0000{named[3]}")
