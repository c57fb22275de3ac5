# SPDX-License-Identifier: Apache-2.0
"""
Which files of a data set are images, and which are their labels: by a layout.

A layout says how a data set lies on disk as it is downloaded, in a few words of JSON:

    {"images": "**/*_image.nii.gz", "label": ["_image.nii.gz", "_label.nii.gz"], "unlabelled": "**/test/*",
     "example": "train/case_1_image.nii.gz"}

``images``: a pattern of paths below the data set's folder (``**`` is any number of folders). ``label``: what to replace
in an image's path to get its label's; left out where there are no labels. ``unlabelled``: a pattern of the images that
have no label by design. ``example``: the path of an image, shown where nothing is found.
"""

from __future__ import annotations

from collections.abc import Mapping
from glob import glob
from pathlib import Path
from typing import Any

from ..errors import InputError

KEYS = {"images", "label", "unlabelled", "example"}


def check_layout(layout: Mapping[str, Any]) -> None:
    """
    Raises:
        InputError: for a layout that is not of the form above.
    """
    wanted = 'layout must be such as {"images": "**/*_image.nii.gz", "label": ["_image", "_label"]}'
    if not isinstance(layout, Mapping) or "images" not in layout or not set(layout) <= KEYS:
        raise InputError(f"{wanted}, not {layout!r}")
    pair = layout.get("label", ["a", "b"])
    texts = [layout.get(key, "a") for key in ("images", "unlabelled", "example")]
    if not isinstance(pair, list | tuple) or len(pair) != 2 or not pair[0] or pair[0] == pair[1]:
        raise InputError(f"{wanted}: label is what to replace in an image's path and by what, not {pair!r}")
    if not all(isinstance(text, str) and text and not Path(text).is_absolute() for text in [*texts, pair[0]]):
        raise InputError(f"{wanted}: patterns are texts, relative to the folder of the data set")


def _label_path(image: str, layout: Mapping[str, Any]) -> str:
    old, new = layout["label"]
    if old not in image:
        raise InputError(f"layout: {image} has no '{old}' to replace, so its label cannot be found: correct the layout")
    return image.replace(old, new)


def laid_out_images(folder: Path, layout: Mapping[str, Any], labelled: bool = False) -> list[dict[str, str]]:
    """
    The images of a folder that lies as a layout says.

    Args:
        folder: of the data set.
        layout: see above.
        labelled: leave out the images that have no label by design.

    Returns:
        full paths ``image`` and, unless the image has none by design, ``label``, which need not exist; sorted.

    Raises:
        InputError: for a layout that is not valid, or that matches no file.
    """
    check_layout(layout)

    def matching(pattern: str) -> list[str]:
        return [path for path in glob(pattern, root_dir=folder, recursive=True) if (folder / path).is_file()]

    found = sorted(matching(layout["images"]))
    unlabelled = set(matching(layout["unlabelled"])) if "unlabelled" in layout else set()
    chosen = [path for path in found if not labelled or path not in unlabelled]
    if not chosen:
        example = layout.get("example")
        shown = f", such as {example}" if example else ""
        shown += f" with its label {_label_path(example, layout)}" if example and "label" in layout else ""
        what = f"{len(found)} images, but all without label" if found else f"no file {layout['images']}"
        raise InputError(
            f"{folder} holds {what}: the files are looked for as they are downloaded{shown}; for a folder in another "
            'order pass --layout "{}", which takes every scan'
        )
    items = [{"image": path} for path in chosen]
    for item in items if "label" in layout else []:
        if item["image"] not in unlabelled:
            item["label"] = str(folder / _label_path(item["image"], layout))
    return [{**item, "image": str(folder / item["image"])} for item in items]
