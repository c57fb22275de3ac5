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
from monai.inferers import SimpleInferer
from PIL import Image
from scripts.evaluation import DistinctPairs, Evaluation
from scripts.evaluation.report import (
    DOUBTFUL,
    Report,
    change,
    grid_pictures,
    named_pairs,
    overlay,
    pair_rows,
    pair_volumes,
    plane_pictures,
    ranking,
    read_history,
    short_names,
    structure_tables,
    table,
)

SIZE = (12, 10, 8)
DASH = "\u2013"
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


class Network(torch.nn.Module):
    """Features of one convolution, a match by half a voxel, half the intensity as restoration; counts what it did."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        kind = torch.nn.Conv3d if dims == 3 else torch.nn.Conv2d
        self.convolution, self.matches = kind(1, 4, 3, padding=1), 0

    def backbone(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.convolution(image)
        return features, features

    def forward(self, image: torch.Tensor, moving: torch.Tensor | None = None) -> Any:
        if moving is None:
            return image / 2
        self.matches += 1
        field = torch.full((1, image.dim() - 2, *image.shape[2:]), 0.5)
        return {"displacement": field, "warped": moving.clone()}


def evaluation(
    folder: Path,
    pairs: int = 4,
    labels: bool = True,
    dims: int = 3,
    seen: tuple[str, ...] = (),
    left_out: bool = True,
    families: tuple[str, str] = ("", ""),
    doubtful: bool = False,
) -> tuple[Evaluation, SimpleNamespace]:
    """A completed evaluation with made-up measures, and its engine."""
    network, size = Network(dims), SIZE[:dims]
    torch.manual_seed(0)
    data = [
        {"image": torch.rand(1, *size), "subject": n, **({"label": torch.randint(0, 3, (1, *size))} if labels else {})}
        for n in range(max(3, pairs + 1))
    ]
    dataset = DistinctPairs(data, None, lambda pair: {**pair, "corrupted": pair["moving"]}, length=pairs)
    dataset.names = [f"/data/{EVIL}/{'ab'[n % 2]}/scan{n}.nii" for n in range(len(data))]
    structures = {"names": ["left", "right"], "groups": [[1], [2]], "families": list(families)} if labels else None
    made = Evaluation(str(folder), network, dataset, structures, seen, left_out)
    for n in range(pairs):
        fixed, moving = dataset.pairs[n]
        row = {"fixed": dataset.names[fixed], "moving": dataset.names[moving], "persons": (fixed, moving)}
        row |= {"ncc_before": 0.1, "ncc_after": 0.5 + n / 10, "folded_percentage": 0.2}
        row |= {"restoration_error_before": 0.02, "restoration_error_after": 0.01}
        if doubtful:
            row["look_at"] = "yes" if n == pairs - 1 else "no"
        if labels:
            row |= {"dice_before": 0.3, "dice_after": 0.8 - n / 10}
            row |= {f"{m}:{name}": 0.5 for m in made.structure_measures for name in made.names}
        made.pairs.append(row)
    engine = SimpleNamespace(
        state=SimpleNamespace(device="cpu"),
        network=network,
        inferer=SimpleInferer(),
        data_loader=SimpleNamespace(dataset=dataset),
    )
    made.completed(engine)
    return made, engine


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Page]:
    """Write a report and read its page."""

    def make(model: str | None = None, settings: dict[str, Any] | None = None, **options: Any) -> Page:
        made, engine = evaluation(tmp_path / "out", **options)
        report = Report(made, made.network, str(tmp_path / "out"), model, settings)
        report.completed(engine)
        assert made.network.matches == min(3, len(made.pairs))
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
    assert "0.0200 → 0.0100" in text
    assert "bundle version" in text + written().text


def test_pictures_come_before_the_tables(written: Callable[..., Page]) -> None:
    page = written()
    order = [attributes["id"] for attributes in page.all("section")]
    assert order == ["pairs", "measures", "features", "training", "run"]
    assert [tag for tag, _ in page.tags].index("img") < [tag for tag, _ in page.tags].index("table")


def test_a_match_not_to_be_trusted_is_marked(written: Callable[..., Page]) -> None:
    """At the top, at the pair itself (the worst by Dice here) and in the table of all; nowhere where none is."""
    text = written(doubtful=True).text
    assert "1 of the matches should be looked at" in text
    assert text.count(DOUBTFUL) == 2
    assert DOUBTFUL in text.partition("Worst pair")[2].partition("moving")[0]
    assert DOUBTFUL not in written().text


def test_structures_are_outlined_where_there_are_labels(written: Callable[..., Page]) -> None:
    assert "Structures after" in written().text
    assert "Structures after" not in written(labels=False).text


@pytest.mark.parametrize(
    ("left_out", "expected"), [(True, "2 further scans of the folder were left out"), (False, "trained on 2 scans")]
)
def test_page_names_what_the_model_was_trained_on(written: Callable[..., Page], left_out: bool, expected: str) -> None:
    text = written(seen=("/data/seen/one.nii", "/data/seen/two.nii"), left_out=left_out).text
    assert expected in text
    assert "one.nii, two.nii" in text


def test_only_some_pairs_have_labels(tmp_path: Path) -> None:
    """Whichever comes first; the pairs shown are those that have a Dice."""
    made, engine = evaluation(tmp_path)
    for name in [key for key in made.pairs[0] if "dice" in key or "hd95" in key]:
        del made.pairs[0][name]
    made.completed(engine)
    text = Page(Report(made, made.network, str(tmp_path)).page(engine)).text
    assert "both scans have labels in 3 of them" in text
    assert "higher after the match in 3 of 3 pairs of persons" in text
    assert set(ranking(made.pairs).values()) == {1, 2, 3}
    assert len(pair_rows(made.pairs)[1]) == 4
    assert pair_rows(made.pairs)[1][-1][1] == DASH


def test_volumes_are_matched_once_more(tmp_path: Path) -> None:
    """The evaluation keeps none, and the same number gives the same pair."""
    made, engine = evaluation(tmp_path)
    assert not any(isinstance(value, np.ndarray | torch.Tensor) for row in made.pairs for value in row.values())
    volumes = pair_volumes(engine, 2, made.groups)
    dataset = engine.data_loader.dataset
    fixed, moving = (dataset.scans[n] for n in dataset.pairs[2])
    np.testing.assert_array_equal(volumes["fixed"], fixed["image"][0])
    np.testing.assert_array_equal(volumes["restored"], moving["image"][0] / 2)
    np.testing.assert_array_equal(volumes["moving_label"], moving["label"][0])
    assert volumes["displacement"].shape == (3, *SIZE)
    assert volumes["carried_label"].shape == SIZE
    assert "fixed_label" not in pair_volumes(engine, 2)


def rows_of_structures(count: int, families: int = 0) -> list[dict[str, Any]]:
    """Structures of growing Dice, in families."""
    return [
        {
            "structure": f"part{n:03d}",
            "family": f"family{n % families}" if families and n else "",
            "dice_before": 0.1,
            "dice_after": n / count,
        }
        for n in range(count)
    ]


def test_structures_are_sorted_and_folded_beyond_twenty() -> None:
    page = Page(structure_tables(rows_of_structures(148)))
    names = re.findall(r"part\d+", page.text)
    assert names == sorted(names, reverse=True)
    assert len(names) == 148
    assert len(page.all("details")) == 1
    assert page.text.index("128 more") > page.text.index(names[19])
    assert page.text.index("128 more") < page.text.index(names[20])
    assert len(Page(structure_tables(rows_of_structures(20))).all("details")) == 0
    assert structure_tables([]) == ""


def test_structures_are_grouped_as_the_data_set_says() -> None:
    """The groups' means in one table, best first, and each group's structures folded."""
    page = Page(structure_tables(rows_of_structures(61, families=3)))
    head = page.text.partition("20 structures")
    groups = re.findall(r"(family\d|others)(?=\d+ structure)", page.text)
    assert groups == ["family0", "family2", "family1", "others"]
    assert len(page.all("details")) == 4
    assert "others: 1 structure" in page.text
    assert change({"dice_before": 0.1, "dice_after": np.mean([n / 61 for n in range(3, 61, 3)])}, "dice") in page.text
    assert head[1]


def test_report_without_labels_ranks_by_likeness(written: Callable[..., Page], tmp_path: Path) -> None:
    page = written(labels=False)
    assert "Dice" not in page.text.replace("label overlap (Dice)", "")
    assert "By likeness (NCC)" in page.text
    assert "needs scans with labels" in page.text
    assert "Collapse of the features" in page.text
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
    assert ranking([{"dice_after": 0.1, "ncc_after": 1}, {"ncc_after": 1}]) == {"The only": 0}


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
    assert values == ["0.0123", "1.235", "12.3", DASH, DASH, "7"]
    assert not re.search(r"<[abc]>", text)


def test_change_needs_an_after() -> None:
    assert change({"error_before": 0.01234, "error_after": 12.3456}, "error") == "0.0123 → 12.3"
    assert change({"dice_before": 0.01234, "dice_after": 0.5}, "dice") == "0.012 → 0.500"
    assert change({"hd95_before": 14.04, "hd95_after": 8.0634}, "hd95") == "14.0 → 8.1"
    assert change({"dice_before": 0.1}, "dice") == change({"dice_after": float("nan")}, "dice") == DASH


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
