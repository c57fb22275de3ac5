# SPDX-License-Identifier: Apache-2.0

"""Each test module has its tier, and each tier its command."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import tier_of


@pytest.fixture(scope="module")
def tiers(pytestconfig) -> list[str]:
    return pytestconfig.getini("tiers")


def test_every_module_is_in_one(repository, tiers):
    paths = [path.relative_to(repository) for path in repository.glob("tests/**/test_*.py")]
    assert {tier_of(path, tiers) for path in paths} == {"fast", "process", "release"}


def test_no_entry_is_stale(repository, tiers):
    assert all((repository / place).exists() for line in tiers for place in line.split()[1:])


@pytest.mark.parametrize(
    ("path", "tiers"),
    [
        ("tests/integration/test_new.py", ["fast tests/scripts"]),
        ("tests/scripts/test_new.py", ["fast tests/scripts", "process tests/scripts/test_new.py"]),
    ],
)
def test_in_none_or_two(path, tiers):
    with pytest.raises(pytest.UsageError, match=f"{path} is in [02] tiers: list it once"):
        tier_of(Path(path), tiers)


def test_a_command_for_each(repository, pytestconfig):
    makefile = (repository / "Makefile").read_text(encoding="utf-8")
    names = [marker.split(":")[0] for marker in pytestconfig.getini("markers")]
    for tier in ("fast", "process", "release"):
        assert tier in names
        assert f"\ntest-{tier}: " in makefile
