# SPDX-License-Identifier: Apache-2.0

"""A made-up evaluation to report on, and a reader of the page."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from monai.inferers import SimpleInferer
from scripts.evaluation import DistinctPairs, Evaluation

SIZE = (12, 10, 8)
DASH = "\u2013"
OUTSIDE = "agreement 0.3, trusted from 0.72"
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
            row |= {"agreement": 0.9 - n / 5, "inliers": 0.95, "conditioning": 0.4}
            failed = n == pairs - 1
            row |= {"look_at": "yes" if failed else "no", "doubts": OUTSIDE if failed else ""}
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
