# SPDX-License-Identifier: Apache-2.0
"""What the pooled features of a whole scan tell of its patient: a class or a number in a table."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..data.tables import number
from ..errors import InputError, check_numbers
from ..finetuning import NO_VALUE, read_table
from ..progress import progress
from .scan_scores import FEWEST, cross_validated, pooled_features, scan_scores, scores_by_group

TASKS = ("classification", "regression")
MOST_CLASSES = 10
"""Different numbers in a column that are taken for classes."""


class ScanLevelProbe:
    """
    A column of a table, told from the frozen pooled f^g of the patients' scans.

    Args:
        table: CSV or TSV; None for no such probe.
        id: its column of what the scans are named by: their subject, or a part of their path.
        target: its column to tell.
        group: its column of groups, between which the scores are compared, such as sex or site; None for none.
        task: "classification" or "regression"; None takes a column of more than ten different numbers for the latter.
        folds: of the cross-validation.
        resamples: of the bootstrap.
        seed: of both.
    """

    def __init__(
        self,
        table: str | None,
        id: str | None = None,
        target: str | None = None,
        group: str | None = None,
        task: str | None = None,
        folds: int = 5,
        resamples: int = 1000,
        seed: int = 0,
    ) -> None:
        if table and not (id and target):
            raise InputError("--table needs --id COLUMN (what scans are named by) and --target COLUMN (what to tell)")
        if task not in (None, *TASKS):
            raise InputError(f"task is {' or '.join(TASKS)}, not {task!r}")
        check_numbers({"folds": folds}, lowest=2, whole=True)
        self.table, self.id, self.target, self.group, self.task = table, str(id), str(target), group, task
        self.folds, self.resamples, self.seed = folds, resamples, seed

    def rows(self, scans: Sequence[Mapping[str, Any]], folder: str) -> list[tuple[Mapping[str, Any], dict[str, str]]]:
        """
        Scans and their rows of the table.

        Raises:
            InputError: where the table cannot be read, or names no scan.
        """
        path = Path(str(self.table))
        path = path if path.exists() else Path(folder, str(self.table))
        columns = [self.id, self.target, *([self.group] if self.group else [])]
        known: dict[str, dict[str, str]] = {}
        for row in read_table(path, columns):
            if row[self.target] not in NO_VALUE and known.setdefault(row[self.id], row) != row:
                raise InputError(f"{path} has contradicting rows of {row[self.id]}: correct the table")
        found = []
        for scan in scans:
            name = _named([str(scan["subject"]), str(scan["image"]).removeprefix(str(folder))], known)
            if name is not None:
                found.append((scan, known[name]))
        if not found:
            raise InputError(
                f"no scan is named by the column '{self.id}' of {path}, which reads {', '.join(list(known)[:3])}: pass "
                "the column whose entries are parts of the scans' names as --id"
            )
        if len(found) < len(scans):
            print(f"{len(scans) - len(found)} of {len(scans)} scans have no row with a value in {path}", flush=True)
        return found

    def __call__(
        self,
        backbones: Mapping[str, nn.Module],
        scans: Sequence[Mapping[str, Any]],
        folder: str,
        transform: Callable[[Any], Any],
    ) -> dict[str, Any]:
        """
        Args:
            backbones: by name.
            scans: dictionaries with ``image`` and ``subject``.
            folder: of the scans; a relative ``table`` may lie there.
            transform: prepares a scan.

        Returns:
            ``task``, ``target``, number of ``scans`` and ``patients``, and by backbone the scores, see
            :func:`scan_scores`; of the main one (AUROC or R2) the paired bootstrap's 95 % interval of the first
            backbone's gain over the second, by patient; with a ``group`` the score of each group and their ``gap``.

        Raises:
            InputError: for too few patients, or classes of too few.
        """
        rows = self.rows(scans, folder)
        owners = np.array([row[self.id] for _, row in rows])
        texts = [row[self.target] for _, row in rows]
        task = self.task or _task_of(texts)
        targets = _targets(texts, task, owners, self.target)
        features: dict[str, list[np.ndarray]] = {name: [] for name in backbones}
        for scan, _ in progress(rows, "Pooling features"):
            image = torch.as_tensor(transform({"image": scan["image"], **_kept(scan)})["image"]).float()
            for name, backbone in backbones.items():
                device = next(backbone.parameters()).device
                features[name].append(pooled_features(backbone.eval(), image.to(device)))
        told = {
            name: cross_validated(np.stack(own), targets, owners, task, self.folds, self.seed)
            for name, own in features.items()
        }
        key = "auroc" if task == "classification" else "r2"
        groups = np.array([row[self.group] for _, row in rows]) if self.group else None
        result: dict[str, Any] = {
            "task": task,
            "target": self.target,
            "scans": len(rows),
            "patients": len(set(owners)),
            "measures": {name: scan_scores(found, targets, task) for name, found in told.items()},
            "gain": self._gain(told, targets, owners, task, key),
        }
        if groups is not None:
            result["groups"] = {name: scores_by_group(found, targets, groups, task) for name, found in told.items()}
        return result

    def _gain(
        self, told: Mapping[str, np.ndarray], targets: np.ndarray, owners: np.ndarray, task: str, key: str
    ) -> dict[str, Any]:
        """Paired bootstrap of the first backbone's score minus the second's."""
        first, second = list(told.values())[:2]
        rng = np.random.default_rng(self.seed)
        members = [np.flatnonzero(owners == owner) for owner in np.unique(owners)]

        def gain(index: np.ndarray) -> float:
            if task == "classification" and len(np.unique(targets[index])) < len(np.unique(targets)):
                return np.nan
            one, other = (scan_scores(found[index], targets[index], task)[key] for found in (first, second))
            return one - other

        drawn = [
            gain(np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))]))
            for _ in range(self.resamples)
        ]
        low, high = np.nanpercentile(drawn, [2.5, 97.5])
        return {
            "measure": key,
            "difference": gain(np.arange(len(targets))),
            "low": float(low),
            "high": float(high),
        }


def _kept(scan: Mapping[str, Any]) -> dict[str, Any]:
    """What the preprocessing needs of a scan beside its image; its label is not read."""
    return {key: scan[key] for key in ("zoom", "zoom_out", "intensity") if key in scan}


def _named(texts: Sequence[str], known: Mapping[str, Any]) -> str | None:
    """
    The entry that a text holds as a word of its own, the longest where one holds another; the first text with any
    counts. Numbers may lack the zeros before them, which spreadsheets drop.

    Raises:
        InputError: where a text names several.
    """
    for text in (unicodedata.normalize("NFC", text) for text in texts):
        if text in known:
            return text
        found = [
            (match.span(), name)
            for name in filter(None, known)
            for match in re.finditer(rf"(?<![^\W_]){'0*' * name.isdigit()}{re.escape(name)}(?![^\W_])", text)
            if match[0] == name or match[0] not in known
        ]
        longest = {
            name
            for (start, end), name in found
            if not any(first <= start and end <= last and last - first > end - start for (first, last), _ in found)
        }
        if len(longest) > 1:
            shown = " and ".join(sorted(longest))
            raise InputError(f"{text} has the names of {shown}: write the table's in full, as in the scans' paths")
        if longest:
            return longest.pop()
    return None


def _task_of(texts: Sequence[str]) -> str:
    try:
        numbers = {float(text.replace(",", ".")) for text in texts}
    except ValueError:
        return "classification"
    return "regression" if len(numbers) > MOST_CLASSES else "classification"


def _targets(texts: Sequence[str], task: str, owners: np.ndarray, column: str) -> np.ndarray:
    """Classes or numbers, checked."""
    if task == "regression":
        try:
            values = np.array([number(text) for text in texts])
        except ValueError as error:
            other = ": correct it, or pass --task classification" if "point" not in str(error) else ""
            raise InputError(f"column '{column}': {error}{other}") from error
        if len(set(owners)) < 2 * FEWEST or not np.isfinite(values).all():
            raise InputError(f"column '{column}' needs finite numbers of {2 * FEWEST} patients or more")
        return values
    targets = np.array(texts)
    patients = {name: len(set(owners[targets == name])) for name in np.unique(targets)}
    few = next((name for name, count in patients.items() if count < FEWEST), None)
    if len(patients) < 2 or few is not None:
        counts = ", ".join(f"{name} {count}" for name, count in patients.items())
        raise InputError(f"column '{column}' needs two classes or more of {FEWEST} patients each, not {counts}")
    return targets
