# SPDX-License-Identifier: Apache-2.0
"""All probes of a model on a folder, pre-trained weights against random ones, and what they say together."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from ..errors import InputError, check_numbers
from ..evaluation import shown_groups, without_nan
from ..files import write_text
from ..finetuning import Backbone
from ..networks import GVSL, another
from .cases import ProbeCases, read_cases
from .comparison import compare, verdict
from .feature_probes import carry_over, cluster_measures
from .figures import probe_figure
from .page import probe_page
from .scan_level import ScanLevelProbe
from .voxel_probes import FineTuning, LinearProbe, exchanged


class Probe:
    """
    Writes ``probe.json``, ``probe.html`` and, with labels, ``probe.png``.

    Args:
        network: with the weights to probe.
        scans: dictionaries with ``image``, ``subject`` and possibly ``label``, see :func:`~scripts.data.find_cohorts`.
        transform: prepares a scan.
        structures: see :func:`~scripts.evaluation.described_structures`.
        linear: probe of the frozen features.
        fine_tuning: the short training.
        scan_level: probe of a table.
        output_dir: where to.
        folds: of the cross-validation by subject.
        most_scans: labelled scans to take at most; None for all.
        worthwhile: the smallest gain in Dice that one would pre-train for.
        seed: of everything that is drawn.
        partial_labels: see :func:`~scripts.probing.read_cases`.
        seen: scans of the folder that the weights were pre-trained on, without their labels.
        settings: values of the configuration to be told, ``pixdim`` among them.

    Raises:
        InputError: without labels and without a table.
    """

    def __init__(
        self,
        network: GVSL,
        scans: Sequence[dict[str, Any]],
        transform: Callable,
        structures: Mapping[str, Sequence[Any]],
        linear: LinearProbe,
        fine_tuning: FineTuning,
        scan_level: ScanLevelProbe,
        output_dir: str,
        folds: int = 5,
        most_scans: int | None = None,
        worthwhile: float = 0.01,
        seed: int = 0,
        seen: Sequence[str] = (),
        partial_labels: bool = False,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        check_numbers({"seed": seed}, whole=True)
        if not structures["names"] and not scan_level.table:
            raise InputError(
                "there is nothing to tell: give labels that dataset.json names, or a table of the patients "
                "(--table FILE --id COLUMN --target COLUMN)"
            )
        self.network = network.eval()
        self.backbone = cast(Backbone, network.backbone)
        self.scans, self.transform = list(scans), transform
        self.structures, self.linear, self.fine_tuning, self.scan_level = structures, linear, fine_tuning, scan_level
        self.folder, self.folds, self.most_scans = Path(output_dir), folds, most_scans
        self.seen, self.partial_labels = set(seen), partial_labels
        self.worthwhile, self.seed, self.settings = worthwhile, seed, dict(settings or {})

    def __call__(self) -> dict[str, Any]:
        """Measure, write, and say the verdict."""
        result: dict[str, Any] = {"settings": self.settings}
        pictures: dict[str, Any] = {}
        if self.scan_level.table:
            backbones = {"weights": self.backbone, "random": self._random(0)}
            folder = str(self.scans[0].get("cohort", "."))
            result["scan_level"] = self.scan_level(backbones, self.scans, folder, self.transform)
        if self.structures["names"]:
            cases = read_cases(
                self.scans,
                self.transform,
                shown_groups(self.structures),
                self.folds,
                self.most_scans,
                self.seed,
                self.partial_labels,
            )
            labelled, pictures = self._labelled(cases)
            result = {**labelled, **result}
        self.folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(without_nan(result), indent=4, allow_nan=False) + "\n"
        write_text(text, self.folder / "probe.json")
        page = self.folder / "probe.html"
        write_text(probe_page(result, pictures), page)
        if "verdict" in result:
            probe_figure(result).savefig(self.folder / "probe.png", dpi=110)
            print(f"verdict: {result['verdict']['verdict']}: {result['verdict']['why']}", flush=True)
        if "scan_level" in result:
            told = result["scan_level"]
            gain = told["gain"]
            scores = ", ".join(f"{name} {own[gain['measure']]:.3f}" for name, own in told["measures"].items())
            shown = f"{gain['difference']:+.3f} (95 % interval {gain['low']:+.3f} to {gain['high']:+.3f})"
            print(f"{told['target']}: {gain['measure']} {scores}; gain {shown}", flush=True)
        print(f"written to {self.folder}: probe.json, {page.name}", flush=True)
        return result

    def _random(self, number: int) -> Backbone:
        """A backbone like the network's, of random weights."""
        backbone = self.backbone
        with torch.random.fork_rng():
            torch.manual_seed(1000 * self.seed + number)
            fresh = cast(Backbone, another(backbone))
        return fresh.to(next(backbone.parameters()).device).eval()

    def _labelled(self, cases: ProbeCases) -> tuple[dict[str, Any], dict[str, Any]]:
        """What is measured with labels, and the label maps found."""
        backbone, number = self.backbone, len(cases.names)
        linear: dict[str, dict[str, float]] = {"weights": {}, "random": {}, "exchanged": {}}
        tuned: dict[str, dict[str, float]] = {"weights": {}, "random": {}}
        curves: dict[str, dict[int, list[float]]] = {"weights": {}, "random": {}}
        found: dict[str, dict[str, torch.Tensor]] = {"weights": {}, "random": {}}
        matched = carry_over(self.network, cases.items)
        for fold in range(len(cases.folds)):
            learned, tested = cases.split(fold)
            fresh, seed = self._random(fold), self.seed + fold
            starts = {"weights": backbone, "random": fresh}
            for name, start in starts.items():
                linear[name] |= self.linear(start, learned, tested, number, seed)
                other = self._random(1000 + fold)
                curve, maps = self.fine_tuning(start, other, learned, tested, number, seed)
                tuned[name] |= curve[self.fine_tuning.steps]
                found[name] |= {item["name"]: label for item, label in zip(tested, maps, strict=True)}
                for step, values in curve.items():
                    curves[name].setdefault(step, []).extend(values.values())
            linear["exchanged"] |= self.linear(backbone, exchanged(learned), tested, number, seed)
            means = ", ".join(
                f"{name} {np.mean([own[item['name']] for item in tested]):.3f}" for name, own in tuned.items()
            )
            print(f"fold {fold + 1} of {len(cases.folds)}: Dice after fine-tuning: {means}", flush=True)
        folds = len(cases.folds)
        by_subject = {
            kind: {name: cases.by_subject(values) for name, values in own.items()}
            for kind, own in {"linear": linear, "tuned": tuned, "matched": matched}.items()
        }
        gain = compare(by_subject["tuned"]["weights"], by_subject["tuned"]["random"], folds)
        follows = compare(by_subject["linear"]["weights"], by_subject["linear"]["exchanged"], folds)
        result = {
            "verdict": verdict(gain, follows, self.worthwhile),
            "scans": len(cases.items),
            "pretrained_on": sum(item["name"] in self.seen for item in cases.items),
            "subjects": len({item["subject"] for item in cases.items}),
            "structures": cases.names,
            "folds": folds,
            "steps": self.fine_tuning.steps,
            "fine_tuning": gain,
            "fine_tuning_by_step": {
                name: {step: float(np.mean(values)) for step, values in own.items()} for name, own in curves.items()
            },
            "linear_probe": compare(by_subject["linear"]["weights"], by_subject["linear"]["random"], folds),
            "true_against_exchanged_labels": follows,
            "carry_over": {
                **compare(by_subject["matched"]["after"], by_subject["matched"]["before"]),
                "folded_percentage": float(np.mean(list(matched["folded"].values()))),
            },
            "features": {
                "weights": cluster_measures(backbone, cases.items, seed=self.seed),
                "random": cluster_measures(self._random(0), cases.items, seed=self.seed),
            },
            "by_subject": {
                subject: {
                    "fine_tuning_weights": by_subject["tuned"]["weights"][subject],
                    "fine_tuning_random": by_subject["tuned"]["random"][subject],
                    "linear_weights": by_subject["linear"]["weights"][subject],
                    "linear_random": by_subject["linear"]["random"][subject],
                    "carried": by_subject["matched"]["after"][subject],
                    "not_matched": by_subject["matched"]["before"][subject],
                }
                for subject in by_subject["tuned"]["weights"]
            },
        }
        order = sorted(cases.items, key=lambda item: tuned["weights"][item["name"]] - tuned["random"][item["name"]])
        shown = order[len(order) // 2]
        name = shown["name"]
        return result, {
            "name": Path(name).name,
            "image": shown["image"][0].numpy(),
            "label": shown["label"][0].numpy(),
            **{arm: maps[name][0].numpy() for arm, maps in found.items()},
        }
