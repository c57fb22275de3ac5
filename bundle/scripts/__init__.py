# SPDX-License-Identifier: Apache-2.0
"""Components of the GVSL bundle, each usable alone by its ``_target_``."""

from .data.reading import set_up_readers

set_up_readers()  # before any component makes a reader of scans
