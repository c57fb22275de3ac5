# SPDX-License-Identifier: Apache-2.0

"""One command makes the documents' tables and pictures anew."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import documents
import pytest
from PIL import Image
from scripts.data import read_json
from scripts.errors import InputError


def test_every_drawn_picture_is_in_a_document():
    """What the plan draws is committed, and a page shows it."""
    shown = "".join(path.read_text(encoding="utf-8") for path in [*documents.REPOSITORY.glob("docs/*.md")])
    for page in ("README.md", "bundle/docs/README.md"):
        shown += (documents.REPOSITORY / page).read_text(encoding="utf-8")
    for picture in read_json(documents.PLAN):
        assert (documents.REPOSITORY / picture).is_file()
        assert picture.split("docs/")[-1] in shown


def test_every_picture_of_the_documents_is_shown():
    """None is left behind when a page changes."""
    pages = [*documents.REPOSITORY.glob("docs/*.md"), documents.REPOSITORY / "README.md"]
    shown = "".join(path.read_text(encoding="utf-8") for path in pages)
    left = [path.name for path in documents.REPOSITORY.glob("docs/pictures/*") if f"pictures/{path.name}" not in shown]
    assert not left


def _anchors(page: Path) -> set[str]:
    """As GitHub names the headings of a page."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def test_every_link_of_the_documents_leads_somewhere():
    """To a file of the repository, and to a heading of it where it names one."""
    pages = [*documents.REPOSITORY.glob("*.md"), *documents.REPOSITORY.glob("docs/*.md")]
    lost = []
    for page in pages:
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            name, _, anchor = link.partition("#")
            target = page.parent / name if name else page
            if not re.match(r"\w+:", link) and (not target.exists() or (anchor and anchor not in _anchors(target))):
                lost.append(f"{page.name}: {link}")
    assert not lost


def test_pictures_of_numbers_need_no_scans(tmp_path, monkeypatch, capsys):
    """The others are left out without a folder of scans, with a line each."""
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    (tmp_path / "docs").mkdir()
    name = "comparison_held_back_hippocampus.csv"
    shutil.copy(documents.REPOSITORY / "benchmarks" / "results" / name, results)
    plan = {
        "docs/dice.png": ["pictures", "dice", "--comparison", f"benchmarks/results/{name}"],
        "docs/places.png": ["pictures", "places", "--data", "DATA"],
    }
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    monkeypatch.setattr(documents, "REPOSITORY", tmp_path)
    monkeypatch.setattr(documents.tables, "main", lambda: None)
    documents.main(["--plan", str(tmp_path / "plan.json")])
    with Image.open(tmp_path / "docs" / "dice.png") as drawn:
        assert min(drawn.size) > 100
    assert not (tmp_path / "docs" / "places.png").exists()
    assert "docs/places.png is drawn from scans: left out without --data" in capsys.readouterr().out


def test_the_folder_of_the_sets_stands_for_its_name(tmp_path):
    assert documents.placed("DATA/heads", tmp_path) == str(tmp_path / "heads")
    assert documents.placed("DATA", tmp_path) == str(tmp_path)
    assert documents.placed("[1,1,1]", tmp_path) == "[1,1,1]"


def test_a_missing_folder_is_one_line(tmp_path, monkeypatch):
    """Of the scans that pictures are drawn from."""
    monkeypatch.setattr(documents.tables, "main", lambda: None)
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps({"docs/x.png": ["pictures", "places", "--data", "DATA"]}))
    with pytest.raises(InputError):
        documents.main(["--plan", str(plan), "--data", str(tmp_path / "none")])
