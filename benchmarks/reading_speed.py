# SPDX-License-Identifier: Apache-2.0

"""
How many scans a second are read and checked: ``python benchmarks/reading_speed.py FOLDER``.

Prints scans a second of processor time for MONAI's ``LoadImage``, for the reader of this project, for its checks, and
for checks that were made before and stand in ``--cache_dir``.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from monai.transforms import LoadImage

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bundle"))

from scripts.data import LoadScan, find_scans


def rate(function: Callable[[], Any], count: int) -> float:
    """Scans a second of processor time, of all threads."""
    start = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        function()
    return count / (time.process_time() - start)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", metavar="FOLDER", help="of scans")
    folder = parser.parse_args().folder
    paths = [scan["image"] for scan in find_scans(folder, min_subjects=1)]  # and the libraries are loaded
    monai, ours = LoadImage(image_only=True, ensure_channel_first=True), LoadScan()
    with tempfile.TemporaryDirectory() as cache:
        rates = {
            "MONAI's LoadImage": rate(lambda: [monai(path) for path in paths], len(paths)),
            "LoadScan": rate(lambda: [ours(path) for path in paths], len(paths)),
            "checked": rate(lambda: find_scans(folder, min_subjects=1, cache_dir=cache), len(paths)),
            "checked before": rate(lambda: find_scans(folder, min_subjects=1, cache_dir=cache), len(paths)),
        }
    for name, scans in rates.items():
        print(f"{name:20}{scans:8.1f} scans a second")


if __name__ == "__main__":
    main()
