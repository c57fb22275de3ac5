# SPDX-License-Identifier: Apache-2.0
"""What a data set's dataset.json says: of the Medical Segmentation Decathlon, or of nnU-Net's raw data sets."""

from __future__ import annotations

import json
import math
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from .result_names import VOLUME_ENDINGS, split_ending


def read_json(path: Path) -> Any:
    """
    The content of a JSON file in UTF-8, with a byte order mark (Notepad) or without, or in UTF-16 (PowerShell).

    Raises:
        InputError: where it cannot be read.
    """
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}): correct it there") from error


def is_blank(value: Any) -> bool:
    """Whether an entry says nothing: null, NaN (as pandas writes it), or a text of blanks."""
    return value is None or not str(value).strip() or (isinstance(value, float) and math.isnan(value))


def is_nnunet(description: Any) -> bool:
    """Whether a description is one of nnU-Net, version 2, whose cases are found by their files' names."""
    return isinstance(description, Mapping) and "channel_names" in description and "training" not in description


def channel_names(description: Mapping[str, Any]) -> dict[int, str]:
    """Names of the channels by number: of ``channel_names``, or ``modality`` in the Decathlon and in nnU-Net 1."""
    names = description.get("channel_names", description.get("modality"))
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, Mapping) or not all(str(number).isdigit() for number in names):
        return {}
    return {int(number): str(name) for number, name in names.items()}


def label_names(description: Mapping[str, Any]) -> dict[int, str]:
    """
    Names of the label codes: ``{"1": "liver"}`` as in the Decathlon, or ``{"liver": 1}`` as in nnU-Net 2. A code that
    belongs to several of nnU-Net's regions has the name of the smallest of them.

    Raises:
        InputError: for labels in another form.
    """
    labels = description.get("labels")
    wanted = '"labels" such as {"0": "background", "1": "liver"} or {"background": 0, "liver": 1}'
    if isinstance(labels, list):
        labels = {str(code): name for code, name in enumerate(labels)}
    if not isinstance(labels, Mapping) or not labels:
        raise InputError(f"dataset.json needs {wanted}")
    if all(re.fullmatch(r"\d+(\.0+)?", str(code)) for code in labels):
        by_code = {int(float(code)): str(name) for code, name in labels.items()}
        _check_names(list(by_code), list(by_code.values()))
        return by_code
    regions: dict[str, list[int]] = {}
    for name, codes in labels.items():
        listed = codes if isinstance(codes, list) else [codes]
        if not listed or not all(isinstance(code, int) and not isinstance(code, bool) and code >= 0 for code in listed):
            raise InputError(f"dataset.json needs {wanted}, not {name!r}: {codes!r}")
        regions[str(name)] = listed
    _check_names([codes[0] for codes in regions.values()], list(regions))
    found: dict[int, str] = {}
    for name, codes in sorted(regions.items(), key=lambda region: len(region[1])):
        for code in codes:
            found.setdefault(code, name)
    return dict(sorted(found.items()))


def listed_images(folder: Path) -> list[dict[str, Any]]:
    """
    The images that a folder's dataset.json describes: its ``training`` entries (Medical Segmentation Decathlon), or
    nnU-Net's cases (``imagesTr/case_0000.nii.gz``, one file a channel; ``labelsTr/case.nii.gz``).

    Returns:
        the entries, with full paths ``image`` and, where it exists, ``label``, or ``missing_label`` where a named one
        does not; nnU-Net's with ``subject``, the case, and ``kind``, the channel.

    Raises:
        InputError: for a dataset.json that is not valid.
    """
    path = folder / "dataset.json"
    description = read_json(path)
    if is_nnunet(description):
        return nnunet_images(folder, description)
    try:
        items = [{"image": entry} if isinstance(entry, str) else dict(entry) for entry in description["training"]]
        for item in items:
            item["image"] = str(_channel_file(as_spelt(folder / item["image"])))
            if named := item.pop("label", None):
                label = as_spelt(folder / str(named))
                item["label" if label.is_file() else "missing_label"] = str(label)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f'{path} is neither a data list (Decathlon: "training", a list of {{"image": ..., "label": ...}}) nor a '
            f'description of nnU-Net ("channel_names", "file_ending"): add what is missing ({error}), or pass --layout '
            '\'{"images": "imagesTr/*.nii.gz"}\' with the pattern of your scans'
        ) from error
    return [item for item in items if not Path(item["image"]).name.startswith("._")]  # macOS's own, in archives


def _check_names(codes: Sequence[int], names: Sequence[str]) -> None:
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise InputError(f"dataset.json names two labels '{twice}': give each a name of its own")
    code = next((code for code, name in zip(codes, names, strict=True) if code and name.lower() == "background"), None)
    if code is not None:
        raise InputError(f"dataset.json names the label {code} 'background', which is 0: correct its \"labels\"")


def as_spelt(path: Path) -> Path:
    """A path that is there, or the same with accents stored in the other way (macOS, Windows) where that one is."""
    forms = (Path(unicodedata.normalize(form, str(path))) for form in ("NFC", "NFD"))
    return path if path.exists() else next((other for other in forms if other.exists()), path)


def first_channel(images: Sequence[Mapping[str, Any]]) -> str | None:
    """The kind of the first channel of nnU-Net's images; None for others."""
    channels = {item["kind"] for item in images if item.get("kind")}
    return min(channels, key=lambda channel: int(channel.split()[1]), default=None)


def _channel_file(image: Path) -> Path:
    """The file itself, or that of its first channel, which nnU-Net 1 leaves out in its list."""
    stem, ending = split_ending(image)
    first = image.with_name(f"{stem}_0000{ending}")
    return first if not image.exists() and first.exists() else image


def nnunet_images(folder: Path, description: Mapping[str, Any]) -> list[dict[str, Any]]:
    """
    The images of an nnU-Net raw data set, version 2.

    Args:
        folder: of the data set.
        description: its dataset.json.

    Returns:
        see :func:`listed_images`.

    Raises:
        InputError: where the files are not there.
    """
    listed = description.get("dataset")
    cases: list[tuple[str, list[Path], Path]] = []
    if isinstance(listed, Mapping):  # nnU-Net 2.1 and later may list the files
        for case, files in listed.items():
            cases.append((case, [folder / image for image in files["images"]], folder / str(files.get("label", ""))))
    else:
        ending = str(description.get("file_ending", ".nii.gz"))
        by_case: dict[str, list[Path]] = {}
        names = sorted(os.listdir(folder / "imagesTr")) if (folder / "imagesTr").is_dir() else []
        for name in names:
            match = re.fullmatch(r"(.+)_(\d{4})" + re.escape(ending), name)
            if match and not name.startswith("."):
                by_case.setdefault(match[1], []).append(folder / "imagesTr" / name)
        cases = [(case, files, folder / "labelsTr" / f"{case}{ending}") for case, files in by_case.items()]
        if not cases:
            raise InputError(
                f"{folder} has no imagesTr/<case>_0000{ending}, as its dataset.json (nnU-Net: channel_names, "
                f"file_ending {ending}) says: correct file_ending, or the files' names"
            )
        if not ending.lower().endswith(VOLUME_ENDINGS):
            raise InputError(
                f"{folder} holds {ending} files (file_ending of its dataset.json): volumes are read from "
                f"{', '.join(VOLUME_ENDINGS)}"
            )
    channels = channel_names(description)
    items = []
    for case, files, label in cases:
        for place, file in enumerate(files):
            number = re.search(r"_(\d{4})$", split_ending(file)[0])
            channel = int(number[1]) if number else place
            item = {
                "image": str(file),
                "subject": case,
                "kind": f"channel {channel} {channels.get(channel, '')}".strip(),
            }
            items.append(item | ({"label": str(label)} if label.is_file() else {}))
    return items
