# SPDX-License-Identifier: Apache-2.0
"""Pieces of a self-contained HTML page: pictures as data, tables, everything escaped."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from matplotlib.figure import Figure
from PIL import Image


def data_uri(picture: Image.Image | Figure) -> str:
    """
    Args:
        picture: an image or a figure.

    Returns:
        the picture as a ``data:`` address: PNG, or JPEG where that is less than half as large.
    """
    png, jpeg = io.BytesIO(), io.BytesIO()
    if isinstance(picture, Figure):
        picture.savefig(png, dpi=130)
    else:
        picture.save(png, "PNG")
        picture.save(jpeg, "JPEG", quality=90, subsampling=0)
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


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], name: str) -> str:
    """
    Args:
        head: of the columns.
        rows: the first value heads the row, a pair there is a name and an explanation; None and NaN become a dash.
        name: of the table.

    Returns:
        a table that scrolls by itself where the screen is narrow.
    """

    def text(value: Any) -> str:
        if isinstance(value, tuple):
            return f"{escape(value[0])}<small>{escape(value[1])}</small>"
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return "&ndash;"
        if isinstance(value, float):
            return f"{value:.{4 if abs(value) < 0.1 else 3 if abs(value) < 10 else 1}f}"
        return escape(str(value))

    body = "".join(
        f"<tr><th scope=row>{text(first)}</th>{''.join(f'<td>{text(value)}</td>' for value in rest)}</tr>"
        for first, *rest in rows
    )
    columns = "".join(f"<th scope=col>{text(column)}</th>" for column in head)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(name)}"><table>'
        f"<thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table></div>"
    )
