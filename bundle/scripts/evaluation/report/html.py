# SPDX-License-Identifier: Apache-2.0
"""Pieces of a self-contained HTML page: pictures as data, tables, everything escaped."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from PIL import Image

if TYPE_CHECKING:
    from matplotlib.figure import Figure


FRAME, STYLE = (Path(__file__).with_name(name) for name in ("frame.html", "style.css"))
"""Of every page."""


def whole_page(template: Path, title: str, sections: Mapping[str, str], heading: str | None = None) -> str:
    """
    Args:
        template: HTML of a page from below its date on, to the end of its body; ``$name`` stands for a section.
        title: of the page, plain text.
        sections: HTML by name.
        heading: plain text; the title without one.

    Returns:
        a page that needs no other file. Scripts run in it where its template has one.
    """
    text = template.read_text(encoding="utf-8")
    return Template(FRAME.read_text(encoding="utf-8")).substitute(
        scripts="; script-src 'unsafe-inline'" if "<script>" in text else "",
        style=STYLE.read_text(encoding="utf-8"),
        title=escape(title),
        heading=escape(heading or title),
        date=f"{datetime.now().astimezone():%d %B %Y, %H:%M %Z}",
        body=Template(text).substitute(sections),
    )


def data_uri(picture: Image.Image | Figure) -> str:
    """
    Args:
        picture: of Pillow, or a figure of matplotlib.

    Returns:
        the picture as a ``data:`` address: PNG, or JPEG where that is less than half as large.
    """
    png, jpeg = io.BytesIO(), io.BytesIO()
    if isinstance(picture, Image.Image):
        picture.save(png, "PNG")
        picture.save(jpeg, "JPEG", quality=90, subsampling=0)
    else:
        picture.savefig(png, dpi=130)
    smaller = 0 < 2 * jpeg.tell() < png.tell()
    content = base64.b64encode((jpeg if smaller else png).getvalue()).decode()
    return f"data:image/{'jpeg' if smaller else 'png'};base64,{content}"


def image_tag(picture: Image.Image | Figure, text: str, attributes: str = "") -> str:
    """
    Args:
        picture: to be embedded.
        text: read out in place of the picture.
        attributes: further ones, as HTML.

    Returns:
        an ``<img>``.
    """
    return f'<img src="{data_uri(picture)}" alt="{escape(text)}" {attributes}>'


def figure_tag(pictures: Mapping[str, Image.Image | Figure], title: str, text: str = "", context: str = "") -> str:
    """
    Args:
        pictures: shown side by side, by name.
        title: what they show.
        text: how to read it.
        context: what they belong to, for who hears the page.

    Returns:
        a ``<figure>`` with its caption.
    """
    images = [
        image_tag(picture, ", ".join(filter(None, [context, title, name])), flexible(picture))
        for name, picture in pictures.items()
    ]
    caption = f"<figcaption><b>{escape(title)}</b> {escape(text)}</figcaption>"
    return f'<figure><div class="row">{"".join(images)}</div>{caption}</figure>'


def flexible(picture: Image.Image | Figure) -> str:
    """The style of a picture whose width in a row is in proportion to its own."""
    return f'style="flex-grow:{picture.width}"' if isinstance(picture, Image.Image) else ""


DIGITS = {"dice": 3, "ncc": 3, "hd95": 1, "agreement": 3, "inliers": 3, "conditioning": 3}
"""Digits after the point of the measures that stand below each other."""


def number(value: float | None, digits: int | None = None) -> str:
    """A number of a table, by its size or with so many digits after the point; a dash for None and NaN."""
    if value is None or math.isnan(value):
        return "\u2013"
    if digits is not None:
        return f"{value:.{digits}f}"
    return f"{value:.{4 if abs(value) < 0.1 else 3 if abs(value) < 10 else 1}f}"


def change(row: Mapping[str, Any], measure: str) -> str:
    """A measure of a row before and after the match, with an arrow between; a dash where it has none."""
    before, after = (row.get(f"{measure}_{when}") for when in ("before", "after"))
    if after is None or math.isnan(after):
        return number(None)
    return f"{number(before, DIGITS.get(measure))} \u2192 {number(after, DIGITS.get(measure))}"


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], name: str, kind: str = "") -> str:
    """
    Args:
        head: of the columns.
        rows: the first value heads the row, a pair there is a name and an explanation; None and NaN become a dash.
        name: of the table.
        kind: "stacked" gives the row's head a line of its own where the screen is narrow; "wraps" breaks long values.

    Returns:
        a table that scrolls by itself where even so it does not fit.
    """

    def text(value: Any) -> str:
        if isinstance(value, tuple):
            return f"{escape(value[0])}<small>{escape(value[1])}</small>"
        return escape(number(value) if value is None or isinstance(value, float) else str(value))

    body = "".join(
        f"<tr><th scope=row>{text(first)}</th>{''.join(f'<td>{text(value)}</td>' for value in rest)}</tr>"
        for first, *rest in rows
    )
    columns = "".join(f"<th scope=col>{text(column)}</th>" for column in head)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(name)}"><table class="{kind}">'
        f"<thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def folded(summary: str, content: str) -> str:
    """Content, already HTML, that opens when its summary is clicked."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"
