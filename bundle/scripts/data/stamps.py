# SPDX-License-Identifier: Apache-2.0
"""What tells that a scan has changed since it was looked at, without reading it."""

from __future__ import annotations

import contextlib
import itertools
import os
import zlib

from .channels import channel_files
from .itk_files import data_files


def file_stamp(path: str) -> list[int]:
    """
    Size and times of a file, with the files of its voxels or further channels beside it; or of all files of a folder;
    of a series, those of its folder.

    Returns:
        bytes, the time of the last change, and a checksum of the names, sizes and times of each: one file may take the
        place of another with an earlier time. The time of the last change of the entry counts too, which copying does
        not preserve.
    """
    if not os.path.exists(path):
        path = os.path.dirname(path)
    if os.path.isdir(path):
        parts = sorted(entry.path for entry in os.scandir(path))
    else:
        named = (channel_files(path, count)[-1] for count in itertools.count(2))
        further = itertools.takewhile(lambda name: name != path and os.path.exists(name), named)
        parts = [path, *data_files(path), *further]
    states = []
    for part in parts:
        with contextlib.suppress(FileNotFoundError):  # gone since the folder was listed
            state = os.stat(part)
            states.append((os.path.basename(part), state.st_size, state.st_mtime_ns, state.st_ctime_ns))
    return [
        sum(size for _, size, _, _ in states),
        max((changed for _, _, changed, _ in states), default=0),
        zlib.crc32(repr(states).encode()),
    ]
