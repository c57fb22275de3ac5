# SPDX-License-Identifier: Apache-2.0

"""Chest-CT-like phantoms with MM-WHS heart labels, the built-in cohort of the bundle."""

from __future__ import annotations
