# SPDX-License-Identifier: Apache-2.0
"""The codes that label files use, and the class numbers that a network and MONAI Label use."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapLabelValue, MapTransform


class CodesToClassesd(MapTransform):
    """
    Turn the codes of a data set's label files into class numbers, 1 to N.

    A case of the data set is known by its entry ``classes`` (see :func:`~scripts.finetuning.labelled_cases`). Labels
    that MONAI Label hands over are class numbers already, which may well be other classes' codes: they stay as they
    are.

    Args:
        keys: of the label maps.
        classes: one dictionary a class, with the ``codes`` that make it up.
        ignored_codes: codes that count as background.
    """

    def __init__(
        self, keys: KeysCollection, classes: Sequence[Mapping[str, Any]], ignored_codes: Sequence[int] = ()
    ) -> None:
        super().__init__(keys)
        numbers = {code: number for number, entry in enumerate(classes, 1) for code in entry["codes"]}
        numbers.update(dict.fromkeys(ignored_codes, 0))
        self.to_class = MapLabelValue(list(numbers), list(numbers.values()))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """
        Args:
            data: with label maps ``(1, D, H, W)``.

        Returns:
            the same with class numbers, without ``classes``.
        """
        result = dict(data)
        if result.pop("classes", None) is not None:  # lists of other lengths make no batch
            for key in self.key_iterator(result):
                result[key] = self.to_class(result[key])
        return result


def output_codes(classes: Sequence[Mapping[str, Any]]) -> list[int]:
    """
    What is written for each class.

    Args:
        classes: one dictionary a class, with the ``codes`` that make it up; ``value``, where there is one, is written,
            else the first of its codes (of no other class, so that what is written can be told apart).

    Returns:
        a code a class, the background's 0 first.
    """
    return [0, *(entry.get("value", entry["codes"][0]) for entry in classes)]
