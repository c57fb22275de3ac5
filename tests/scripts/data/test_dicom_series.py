# SPDX-License-Identifier: Apache-2.0
"""The state of files and folders by which a cache knows them again."""

from __future__ import annotations

import os
from types import SimpleNamespace

from scripts.data import file_stamp


def test_a_file_that_disappears_while_its_folder_is_read_counts_no_more(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"123")
    listed = [*os.scandir(tmp_path), SimpleNamespace(path=str(tmp_path / "gone"))]
    monkeypatch.setattr(os, "scandir", lambda _: listed)
    assert file_stamp(str(tmp_path))[0] == 3
