# SPDX-License-Identifier: Apache-2.0
"""Which structures were drawn in a label map, before it is cropped."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.transforms import Transform


def drawn_structures(label: torch.Tensor, count: int) -> torch.Tensor:
    """
    Args:
        label: whole label map, ``(1, D, H, W)``, numbers of the structures from 1, 0 elsewhere.
        count: of the structures.

    Returns:
        ``(count,)``: 1 for each that the map shows, 0 for the others.
    """
    shown = torch.as_tensor(label).round().long().unique().cpu()
    return torch.isin(torch.arange(1, count + 1), shown).float()


class DrawnStructuresd(Transform):
    """
    Note under ``drawn`` which structures were drawn, ``(count,)`` of 0 and 1, for
    :class:`~scripts.finetuning.LeaveOpenInferer`.

    Args:
        count: of the structures.
        partial: take those that the map shows; else all, so that what is not in a map is not in the scan.
        key: of the label map, numbers of the structures from 1.
    """

    def __init__(self, count: int, partial: bool = False, key: str = "label") -> None:
        self.count, self.partial, self.key = count, partial, key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """
        Args:
            data: with the whole label map ``(1, D, H, W)``.
        """
        drawn = drawn_structures(data[self.key], self.count) if self.partial else torch.ones(self.count)
        return {**data, "drawn": drawn}
