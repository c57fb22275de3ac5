# SPDX-License-Identifier: Apache-2.0

"""The report of a real small run in a headless browser: nothing breaks, every picture shows, it fits a phone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html import escape, unescape
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--dump-dom",
]
WATCH = """<script>
const errors = [];
window.addEventListener("error", event => errors.push(event.message || "not loaded: " + event.target.tagName), true);
window.addEventListener("securitypolicyviolation", event => errors.push("blocked: " + event.blockedURI));
for (const level of ["error", "warn"]) console[level] = (...words) => errors.push(words.join(" "));
</script>"""
CHECK = """<script>
window.addEventListener("load", () => {
  const images = [...document.images];
  const box = document.querySelector(".compare"), range = box.querySelector("input");
  const cut = () => getComputedStyle(box.querySelector(".after")).clipPath;
  const slide = value => { range.value = value; range.dispatchEvent(new Event("input")); return cut(); };
  const clips = [0, 50, 100].map(slide);
  const frame = box.querySelector(".stack > div").getBoundingClientRect();
  const place = {clientX: frame.left + frame.width / 4, clientY: frame.top + 5, buttons: 1, bubbles: true};
  box.querySelector(".stack > div").dispatchEvent(new PointerEvent("pointerdown", place));
  parent.document.getElementById("findings").textContent = JSON.stringify({
    errors,
    images: images.length,
    broken: images.filter(image => !(image.complete && image.naturalWidth > 0)).map(image => image.alt),
    invisible: images.filter(image => image.offsetWidth < 20 || image.offsetHeight < 10).map(image => image.alt),
    uneven: images.filter(image => image.naturalWidth / image.naturalHeight / image.width * image.height > 1.1
      || image.naturalWidth / image.naturalHeight / image.width * image.height < 0.9).map(image => image.alt),
    width: document.scrollingElement.scrollWidth,
    small: [...document.querySelectorAll("nav a, summary, input")].filter(a => a.offsetHeight < 40).length,
    dragged: Number(range.value),
    clips,
  });
});
</script>"""


@pytest.fixture(scope="module")
def browser() -> str:
    """The command of a Chromium."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no chromium to open the report with: apt-get install chromium")
    return found


@pytest.fixture(scope="module")
def report(
    browser: str,
    tmp_path_factory: pytest.TempPathFactory,
    make_cohort: Callable,
    run_bundle: Callable,
    repository: Path,
) -> str:
    """The page about a network that was trained for a moment on a made-up cohort with two structures."""
    folder = tmp_path_factory.mktemp("report")
    cohort = make_cohort(folder / "cohort & <b>more</b>")
    for path in (cohort / "imagesTr").iterdir():
        scan = nib.load(path)
        labels = np.digitize(scan.get_fdata(), [-100, 100])[..., None] == [0, 2]
        codes = (labels * [2, 1]).sum(axis=-1).astype(np.uint8)
        nib.save(nib.Nifti1Image(codes, scan.affine), cohort / "labelsTr" / path.name)
    description = json.loads((cohort / "dataset.json").read_text(encoding="utf-8"))
    description["labels"] = {"0": "background", "1": "ridge", "2": "valley"}
    (cohort / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    trained = run_bundle(dataset_dir=cohort, output_dir=folder / "run")
    assert trained.returncode == 0, trained.stderr
    evaluated = run_bundle(
        config_file=[str(repository / f"bundle/configs/{name}.json") for name in ("train", "evaluate")],
        dataset_dir=cohort,
        output_dir=folder / "report",
        model=folder / "run" / "model.pt",
        held_back=False,
        validation_pairs=4,
    )
    assert evaluated.returncode == 0, evaluated.stderr
    assert (folder / "report" / "embedding.png").is_file()
    return (folder / "report" / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def opened(browser: str, report: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    """
    Open the page, ``added`` at its end, in a frame of a given width (a headless window is never as narrow as a phone);
    returns what was found.
    """

    def open_page(width: int, added: str = "") -> dict[str, Any]:
        folder = tmp_path_factory.mktemp("browser")
        watched = report.replace("<style>", WATCH + "<style>", 1).replace("</body>", added + CHECK + "</body>", 1)
        frame = f'<iframe style="width:{width}px;height:900px;border:0" srcdoc="{escape(watched)}"></iframe>'
        (folder / "page.html").write_text(
            f'<!DOCTYPE html><meta charset="utf-8"><pre id="findings"></pre>{frame}', encoding="utf-8"
        )
        command = [browser, *FLAGS, f"--user-data-dir={folder / 'profile'}", f"--window-size={width + 100},1000"]
        run = subprocess.run(
            [*command, f"file://{folder / 'page.html'}"], capture_output=True, text=True, timeout=120, check=False
        )
        found = re.search(r'<pre id="findings">(.+?)</pre>', run.stdout, re.DOTALL)
        assert found, run.stderr
        console = [line for line in run.stderr.splitlines() if "CONSOLE" in line]
        return {**json.loads(unescape(found.group(1))), "console": console}

    return open_page


@pytest.mark.parametrize("width", [390, 1280])
def test_page_works_in_a_browser(opened: Callable[..., dict[str, Any]], width: int) -> None:
    found = opened(width)
    assert found["errors"] == []
    assert found["console"] == []
    assert found["images"] > 50
    assert found["broken"] == []
    assert found["invisible"] == []
    assert found["uneven"] == []
    assert found["width"] <= width
    assert found["small"] == 0
    assert found["clips"] == ["inset(0px 100% 0px 0px)", "inset(0px 50% 0px 0px)", "inset(0px 0% 0px 0px)"]
    assert found["dragged"] == 25


def test_check_sees_faults(opened: Callable[..., dict[str, Any]]) -> None:
    """What the test above finds nothing of is found where it is there."""
    wide, outside = '<div style="width:600px">wide</div>', '<img src="https://example.org/a.png" alt="outside">'
    broken, noisy = '<img src="data:image/png;base64,AAAA" alt="broken">', '<script>console.error("noise")</script>'
    found = opened(390, wide + outside + broken + noisy)
    assert found["width"] >= 600
    assert set(found["broken"]) == {"outside", "broken"}
    assert "noise" in found["errors"]
    assert any(error.startswith("blocked") for error in found["errors"])


def test_page_tells_what_the_run_was(report: str) -> None:
    for expected in (
        "ridge",
        "valley",
        "Structures after",
        "cohort &amp; &lt;b&gt;more&lt;/b&gt;",
        "SHA-256",
        "Curves over the epochs",
    ):
        assert expected in report
