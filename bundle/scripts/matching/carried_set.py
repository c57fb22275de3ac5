# SPDX-License-Identifier: Apache-2.0
"""Labels carried over, described as a labelled data set: what a network is trained on that shall give them faster."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data.dataset_json import label_names, read_json
from ..data.labels import as_codes
from ..data.reading import read_scan
from ..data.result_names import read_record
from ..files import write_text
from ..progress import say
from .label_propagation import CORRECTED
from .match_table import read_rows
from .vote_labels import TABLE

FILE = "dataset.json"
MADE = "labels carried over"
"""Name of the data set, by which a file of an earlier run is known."""


def describe_carried(output_dir: str, pairs: Sequence[Mapping[str, Any]], modality: str) -> None:
    """
    Write ``<output_dir>/dataset.json`` in the form of the Medical Segmentation Decathlon: the scans with the labels
    that were carried to them, without those of which no match can be trusted, and the labelled scans that these come
    from. What a person has put into the file of an earlier run stays (names of the structures, say), and so does a file
    of that name that is of something else.

    Args:
        output_dir: folder of the results.
        pairs: see :func:`~scripts.matching.list_propagation`.
        modality: of the scans, "CT" or "MR".
    """
    folder = Path(output_dir)
    path = folder / FILE
    earlier = read_json(path) if path.is_file() else {"name": MADE}
    if not isinstance(earlier, dict) or earlier.get("name") != MADE:
        say(f"{path} is of something else and stays: the labels are not described as a data set")
        return
    record, rows = read_record(folder), read_rows(folder / TABLE)
    labelled = {
        os.path.abspath(str(pair["moving"])): os.path.abspath(str(pair["label"]))
        for pair in pairs
        if Path(str(pair["label"])).parent != folder / CORRECTED
    }
    doubtful = 0
    for row in sorted(rows, key=lambda row: row["result"]):
        scan, label = record.get(row["result"], [""])[0], folder / f"{row['result']}.nii.gz"
        if not scan or not label.is_file():
            continue
        if row["look_at"] == "yes":
            doubtful += 1
        else:
            labelled.setdefault(scan, label.name)
    maps = (str(folder / label) for label in labelled.values())  # earlier runs may have carried other codes
    codes = set().union(*(np.unique(as_codes(np.asarray(read_scan(path)[1]))).tolist() for path in maps))
    names = {0: "background"} | {code: f"structure {code}" for code in sorted(codes) if code > 0}
    given = label_names(earlier) if "labels" in earlier else {}
    description = {
        **{"modality": {"0": modality}, **earlier},
        "description": f"Labels carried over by matching; {doubtful} results of which no match can be trusted left out",
        "labels": {str(code): name for code, name in (names | given).items()},
        "training": [{"image": image, "label": label} for image, label in labelled.items()],
    }
    write_text(json.dumps(description, indent=4) + "\n", path)
    say(f"{path}: {len(labelled)} labelled scans for a network of your own (make child), {doubtful} doubtful left out")
