# SPDX-License-Identifier: Apache-2.0

"""What the tests of the comparison share."""

from __future__ import annotations

import pytest
from evidence.plan import read_plan


@pytest.fixture(scope="module")
def plan(repository):
    return read_plan(repository / "benchmarks" / "evidence.json")
