# SPDX-License-Identifier: Apache-2.0

"""Tests of the report's page: complete, self-contained, safe and readable without labels or training history."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scripts.evaluation import Evaluation
from scripts.evaluation.report import (
    Report,
    grid_pictures,
    named_pairs,
    overlay,
    plane_pictures,
    ranking,
    read_history,
    short_names,
    table,
)
from scripts.networks import GVSL, DeformableHead, RestorationHead, UNetBackbone, ZMatchingHead

SIZE = (12, 10, 8)
EVIL = "<script>alert(1)</script>"


class Page(HTMLParser):
    """Every tag with its attributes, and the text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("img", "meta", "input", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def evaluation(folder: Path, pairs: int = 4, labels: bool = True, dims: int = 3) -> Evaluation:
    """A completed evaluation with made-up measures and volumes."""
    network = GVSL(
        UNetBackbone(dims, features=(4, 8)),
        ZMatchingHead(None, DeformableHead(4, 8, spatial_dims=dims)),
        RestorationHead(4, 8, dims),
    )
    rng, size = np.random.default_rng(0), SIZE[:dims]
    scans = [{"image": torch.rand(1, *size), "label": torch.randint(0, 3, (1, *size))} for _ in range(3)]
    made = Evaluation(
        str(folder),
        network,
        [[1], [2]] if labels else [],
        ["left", "right"] if labels else [],
        scans if labels else None,
        [f"subject {EVIL} {n}" for n in range(3)],
    )
    for n in range(pairs):
        row = {"fixed": f"/data/{EVIL}/a/scan{n}.nii", "moving": f"/data/{EVIL}/b/scan{n + 1}.nii"}
        row |= {"ncc_before": 0.1, "ncc_after": 0.5 + n / 10, "folded_percentage": 0.2, "restoration_error": 0.01}
        if labels:
            row |= {"dice_before": 0.3, "dice_after": 0.8 - n / 10}
            row |= {f"{m}:{name}": 0.5 for m in made.structure_measures for name in made.names}
        made.pairs.append(row)
        images = {
            k: rng.random(size).astype(np.float16) for k in ("fixed", "moving", "warped", "corrupted", "restored")
        }
        images["displacement"] = rng.normal(size=(dims, *size)).astype(np.float16)
        made.volumes.append(images)
    made.completed(SimpleNamespace(state=SimpleNamespace(device="cpu")))
    return made


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Page]:
    """Write a report and read its page."""

    def make(model: str | None = None, settings: dict[str, Any] | None = None, **options: Any) -> Page:
        made = evaluation(tmp_path / "out", **options)
        report = Report(made, made.network, str(tmp_path / "out"), model, settings)
        report.completed(SimpleNamespace(state=SimpleNamespace(device="cpu")))
        return Page((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))

    return make


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A file for the weights, with a history beside it."""
    path = tmp_path / "run" / "model.pt"
    path.parent.mkdir()
    path.write_bytes(b"weights")
    path.with_name("history.csv").write_text(
        "epoch,matching,ncc_before,ncc_after\n1,0.5,0.1,0.2\n2,0.4,,\n", encoding="utf-8"
    )
    return path


def test_page_is_self_contained(written: Callable[..., Page], tmp_path: Path) -> None:
    page = written()
    for _, attributes in page.tags:
        for name in ("src", "href", "srcset", "data", "action"):
            assert (attributes.get(name) or "#").startswith(("data:image/", "#"))
    source = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|url\(|@import", source)
    assert "viewport" in {attributes.get("name") for attributes in page.all("meta")}


def test_every_picture_is_complete_and_described(written: Callable[..., Page], model: Path) -> None:
    images = written(str(model)).all("img")
    assert len(images) > 50
    for attributes in images:
        assert attributes["alt"]
        content = base64.b64decode((attributes["src"] or "").partition("base64,")[2])
        with Image.open(io.BytesIO(content)) as picture:
            picture.load()


def test_page_is_well_formed_with_one_slider_a_pair(written: Callable[..., Page]) -> None:
    page = written()
    assert page.open == []
    sliders = [attributes for attributes in page.all("input") if attributes["type"] == "range"]
    assert [(a["aria-label"] or "").split()[0] for a in sliders] == ["Best", "Median", "Worst"]
    anchors = {attributes["href"] for attributes in page.all("a")}
    assert anchors == {f"#{attributes['id']}" for attributes in page.all("section")}


def test_names_are_escaped(written: Callable[..., Page], model: Path) -> None:
    page = written(str(model), {"dataset_dir": f"/{EVIL}", "pixdim": [1, 1, 2]})
    assert len(page.all("script")) == 1
    assert "alert" in page.text
    assert f"/{EVIL}" in page.text


def test_page_says_what_was_run(written: Callable[..., Page], model: Path) -> None:
    text = written(str(model), {"seed": 4321}).text
    for expected in (str(model), hashlib.sha256(b"weights").hexdigest(), "4321", torch.__version__, np.__version__):
        assert expected in text


def test_page_tells_the_measures(written: Callable[..., Page]) -> None:
    text = written().text
    for expected in ("0.300 → 0.650", "0.100 → 0.650", "0.20 %", "Silhouette", "left", "Chance would be 0.50"):
        assert expected in text


def test_report_without_labels_ranks_by_likeness(written: Callable[..., Page], tmp_path: Path) -> None:
    page = written(labels=False)
    assert "Dice" not in page.text.replace("label overlap (Dice)", "")
    assert "By likeness (NCC)" in page.text
    assert "needs scans with labels" in page.text
    assert not (tmp_path / "out" / "embedding.png").exists()
    assert any("Sagittal" in (a["alt"] or "") for a in page.all("img"))


def test_embedding_is_written(written: Callable[..., Page], tmp_path: Path) -> None:
    written()
    with Image.open(tmp_path / "out" / "embedding.png") as picture:
        assert min(picture.size) > 300


def test_report_without_history_and_weights(written: Callable[..., Page]) -> None:
    text = written(None).text
    assert "no history.csv" in text
    assert "untrained" in text


def test_history_is_read_with_gaps_and_foreign_files_are_left(model: Path) -> None:
    assert read_history(str(model)) == [
        {"epoch": 1, "matching": 0.5, "ncc_before": 0.1, "ncc_after": 0.2},
        {"epoch": 2, "matching": 0.4},
    ]
    history = model.with_name("history.csv")
    for foreign in ("", "name,score\na,b\n", "step,loss\n1,2\n", "epoch,loss\n1,2,3\n"):
        history.write_text(foreign, encoding="utf-8")
        assert read_history(str(model)) == []


@pytest.mark.parametrize("pairs", [1, 2])
def test_few_pairs(written: Callable[..., Page], pairs: int) -> None:
    page = written(pairs=pairs)
    assert len(page.all("input")) == pairs
    assert ("The only pair" in page.text) == (pairs == 1)


def test_report_of_2d_images(written: Callable[..., Page]) -> None:
    page = written(labels=False, dims=2)
    assert {"Axial"} == {
        (a["alt"] or "") for a in page.all("img") if (a["alt"] or "") in ("Axial", "Coronal", "Sagittal")
    }


def test_ranking_takes_the_best_the_median_and_the_worst() -> None:
    pairs = [{"ncc_after": value} for value in (0.3, 0.9, float("nan"), 0.5, 0.7)]
    assert ranking(pairs) == {"Best": 1, "Median": 3, "Worst": 2}
    assert ranking([{"dice_after": 0.1, "ncc_after": 1}, {"dice_after": 0.2, "ncc_after": 0}]) == {
        "Best": 1,
        "Worst": 0,
    }


def test_names_lose_the_common_folder() -> None:
    assert short_names(["/a/b/x/1.nii", "/a/b/y/1.nii"]) == {"/a/b/x/1.nii": "x/1.nii", "/a/b/y/1.nii": "y/1.nii"}
    assert short_names(["d/1.nii", "d/2.nii"]) == {"d/1.nii": "1.nii", "d/2.nii": "2.nii"}
    assert short_names(["0", "/a/1.nii"]) == {"0": "0", "/a/1.nii": "/a/1.nii"}
    assert named_pairs([{"fixed": "d/1.nii", "moving": "d/2.nii", "n": 1}]) == [
        {"fixed": "1.nii", "moving": "2.nii", "n": 1}
    ]


def test_table_rounds_escapes_and_marks_what_is_missing() -> None:
    text = table(["<a>"], [[("<b>", "<c>"), 0.01234, 1.23456, 12.3456, None, float("nan"), 7]], "numbers")
    values = re.findall(r"<td>(.*?)</td>", text)
    assert values == ["0.0123", "1.235", "12.3", "&ndash;", "&ndash;", "7"]
    assert not re.search(r"<[abc]>", text)


def test_planes_have_true_proportions_and_radiological_sides() -> None:
    volume = np.zeros((10, 20, 30), dtype=np.float32)
    volume[5:, :, 15:] = 1  # right and superior
    pictures = plane_pictures(volume, (2, 1, 1), pixels=60)
    assert {name: picture.size for name, picture in pictures.items()} == {
        "sagittal": (40, 60),
        "coronal": (40, 60),
        "axial": (40, 40),
    }
    coronal = np.asarray(pictures["coronal"])
    assert coronal[5, 5] == 255
    assert coronal[5, -5] == coronal[-5, 5] == 0


def test_grid_has_the_size_of_the_planes() -> None:
    grids = grid_pictures(np.zeros((3, *SIZE)), (1, 2, 1))
    planes = plane_pictures(np.zeros(SIZE), (1, 2, 1))
    assert {n: p.size for n, p in grids.items()} == {n: p.size for n, p in planes.items()}
    assert np.asarray(grids["axial"]).min() < 100


def test_equal_images_overlay_to_grey() -> None:
    image = np.random.default_rng(0).random(SIZE)
    np.testing.assert_array_equal(np.ptp(overlay(image, image), axis=-1), 0)
