# SPDX-License-Identifier: Apache-2.0
"""Components of the GVSL bundle, each usable alone by its ``_target_``."""
