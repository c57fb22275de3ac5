# SPDX-License-Identifier: Apache-2.0
"""What the maker of release packages is built from."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bundle"))  # the parent's scripts
