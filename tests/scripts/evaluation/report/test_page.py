# SPDX-License-Identifier: Apache-2.0

"""Tests of the report's page: complete, self-contained, safe and readable without labels or training history."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_up_reports import DASH, EVIL, OUTSIDE, SIZE, Page, evaluation
from PIL import Image
from scripts.evaluation.report import DOUBTFUL, Report, pair_rows, pair_volumes, ranking


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
    """At the top, at the pair itself (the worst by Dice here) and in the table of all, with why; nowhere else."""
    text = written(doubtful=True).text
    assert "1 of the matches should be looked at" in text
    assert text.count(f"{DOUBTFUL}: {OUTSIDE}") == 1
    assert text.count(f"{DOUBTFUL}{OUTSIDE}") == 1
    assert text.count(DOUBTFUL) == 2
    assert f"{DOUBTFUL}: {OUTSIDE}" in text.partition("Worst pair")[2].partition("moving")[0]
    assert DOUBTFUL not in written().text


def test_a_pair_has_the_confidence_of_its_map(written: Callable[..., Page]) -> None:
    """In the lines of pairs shown, in the table of all, and the means with their meaning; none without such a map."""
    text = written(doubtful=True).text
    for name, agreement in (("Best", "0.900"), ("Median", "0.500"), ("Worst", "0.300")):
        line = text.partition(f"{name} pair")[2].partition("moving")[0]
        assert f"agreement {agreement}; inliers 0.950; conditioning 0.400" in line
    assert "foldedagreementinliersconditioningmatch" in text.replace(", %", "")
    for row in ("Agreement of the global map", "(inliers)", "(conditioning)"):
        assert row in text
    text = written().text
    assert "conditioning" not in text
    assert "Agreement" not in text


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


def test_every_term_of_the_loss_has_a_curve(written: Callable[..., Page], model: Path) -> None:
    model.with_name("history.csv").write_text(
        "epoch,learning_rate,train_loss,places,known_map,new_term,ncc_before,ncc_after\n1,0.1,3,2,1,1,0.5,0.6\n",
        encoding="utf-8",
    )
    shown = [attributes["alt"] or "" for attributes in written(str(model)).all("img")]
    assert [text for text in shown if text.startswith("Curves")] == [
        f"Curves over the epochs: {names}" for names in ("places", "known map, new term", "ncc before, ncc after")
    ]


def test_report_without_history_and_weights(written: Callable[..., Page]) -> None:
    text = written(None).text
    assert "no history.csv" in text
    assert "untrained" in text


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
