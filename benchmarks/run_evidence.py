# SPDX-License-Identifier: Apache-2.0

"""
Which part of the method does the work? ``python benchmarks/run_evidence.py --data FOLDER --out FOLDER``.

Pre-trains every arm of ``evidence.json`` with the same budget, data order and initialisation, measures it on held-back
subjects, and writes ``results.csv``, ``results.md`` and figures. Started again, it goes on where it was cut off.
"""

from __future__ import annotations

import argparse
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import matplotlib.pyplot as plt

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bundle"))

from evidence import figures, results
from evidence.cohorts import Cohort, make_network, read_cohort
from evidence.finetuning import fine_tuning
from evidence.matching import propagation, rotation
from evidence.plan import Unit, against, list_units, read_plan, sources_of
from evidence.pretraining import weights_of
from evidence.probes import channels, classification, clustering, linear_probe
from evidence.results import Value
from evidence.settings import digest, keep_settings
from evidence.table import markdown
from scripts.data import find_scans
from scripts.errors import InputError, show_one_line
from scripts.networks import GVSL, UNetBackbone


class Evidence:
    """
    Args:
        plan: see :func:`evidence.plan.read_plan`.
        data: folder that holds the sets.
        out: folder of everything that is made.
        choosing: measure on training subjects, for ``choosing.csv``; the held-back ones stay unseen.
    """

    def __init__(self, plan: dict[str, Any], data: Path, out: Path, choosing: bool = False) -> None:
        self.plan, self.data, self.out, self.choosing = plan, data, out, choosing
        self.path = out / ("choosing.csv" if choosing else "results.csv")
        self.cohort = lru_cache(maxsize=3)(self._cohort)
        self.network = lru_cache(maxsize=2)(self._network)

    def folder(self, data: str) -> Path:
        folder = self.data / self.plan["sets"][data].get("folder", data)
        if not (folder / "dataset.json").is_file():
            raise InputError(f"{folder} holds no dataset.json: pass --data <folder that holds {data}>, or other --sets")
        return folder

    def digest(self, data: str) -> str:
        """Of the files of a set."""
        folder = self.folder(data)
        return digest(folder, find_scans(str(folder)))

    def _cohort(self, data: str, seed: str) -> Cohort:
        cohort = read_cohort(self.plan, data, seed, self.folder(data), self.out / "cache" / f"{data}_measured")
        return cohort.without_held_back(**self.plan["choosing"]) if self.choosing else cohort

    def _network(self, source: str, arm: str, seed: str, data: str) -> GVSL:
        folders = [self.folder(name) for name in sources_of(self.plan)[source]]
        weights = weights_of(self.plan, source, arm, seed, folders, self.out)
        return make_network(self.plan, data, arm, seed, weights)

    def backbone(self, unit: Unit) -> UNetBackbone:
        """What gives the features of a unit."""
        return cast("UNetBackbone", self.network(unit.pretrained_on, unit.arm, unit.seed, unit.data).backbone)

    def measure(self, unit: Unit) -> list[Value]:
        """The numbers of one unit; pre-trains where that is still to be done."""
        seed, cohort = int(unit.seed), self.cohort(unit.data, unit.seed)
        options = {k: v for k, v in self.plan["measures"][unit.measure].items() if k != "labelled"}
        network = self.network(unit.pretrained_on, unit.arm, unit.seed, unit.data)
        backbone = cast("UNetBackbone", network.backbone)
        if unit.measure.endswith("probe"):
            return linear_probe(backbone, cohort, unit.labelled, seed, **options)
        if unit.measure.endswith("clustering"):
            return clustering(backbone, cohort, seed, **options)
        if unit.measure.startswith("fine_tuning"):
            fresh = make_network(self.plan, unit.data, unit.arm, unit.seed, None)
            return fine_tuning(network, fresh, cohort, unit.labelled, seed, **options)
        if unit.measure == "channels":
            return channels(network, cohort)
        if unit.measure == "propagation":
            return propagation(network, cohort, **options)
        if unit.measure == "rotation":
            return rotation(network, cohort, seed, **options)
        about = self.plan["sets"][unit.data]["classification"]
        return classification(network, cohort, about, self.folder(unit.data), seed, **options)

    def run(self, units: list[Unit]) -> None:
        """Measure what is not measured yet."""
        done = results.read(self.path)
        left = [unit for unit in units if unit not in done]
        measured = [unit for unit in units if unit in done]
        keep_settings(self.path.with_suffix(".json"), self.plan, measured, units, self.digest)
        print(f"{len(units)} units of work, {len(units) - len(left)} done already", flush=True)
        for number, unit in enumerate(left, start=1):
            values = self.measure(unit)
            results.append(self.path, unit, values)
            means = {q: [v.value for v in values if v.quantity == q] for q in dict.fromkeys(v.quantity for v in values)}
            shown = ", ".join(f"{q} {sum(v) / len(v):.3f}" for q, v in means.items() if q != "dice_at_step")
            print(f"{number}/{len(left)} {' '.join(filter(None, unit))}: {shown}", flush=True)

    def report(self, units: list[Unit]) -> None:
        """Write the table of everything measured so far, and but for choices the figures."""
        found = results.read(self.path)
        self.path.with_suffix(".md").write_text(markdown(found, self.plan), encoding="utf-8")
        if self.choosing:
            return
        for data in self.plan["sets"]:
            self._save(figures.learning_curves(self.plan, self.out, data), f"{data}_learning_curves.png")
            self._save(figures.label_efficiency(self.plan, found, data), f"{data}_label_efficiency.png")
        for data, seed in {(unit.data, unit.seed): None for unit in units if unit.seed == units[0].seed}:
            measured = (unit for unit in units if unit in found and unit.seed == seed)
            own = {unit.arm: unit for unit in measured if unit.pretrained_on == unit.data == data}
            backbones = {arm: self.backbone(unit) for arm, unit in own.items()}
            if backbones:
                picture = figures.feature_clusters(backbones, self.cohort(data, seed), 20, int(seed))
                self._save(picture, f"{data}_features.png")
            if self.plan["reference"] in backbones:
                network = self.network(data, self.plan["reference"], seed, data)
                self._save(figures.registration(network, self.cohort(data, seed), data), f"{data}_registration.png")
        print(f"written to {self.out}", flush=True)

    def _save(self, figure: Any, name: str) -> None:
        if figure is not None:
            figure.savefig(self.out / name, dpi=110)
            plt.close(figure)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the sets")
    parser.add_argument("--out", type=Path, required=True, help="folder for everything made")
    parser.add_argument("--plan", type=Path, default=Path(__file__).with_name("evidence.json"), help="what is compared")
    parser.add_argument("--arms", nargs="+", help="some of the arms")
    parser.add_argument("--pretrained_on", nargs="+", help="some of the sets, or mixtures of them")
    parser.add_argument("--sets", nargs="+", help="some of the sets to measure on")
    parser.add_argument("--seeds", nargs="+", type=int, help="other seeds")
    parser.add_argument("--measures", nargs="+", help="some of the measures")
    parser.add_argument("--labelled", nargs="+", help="some of the numbers of labelled subjects")
    parser.add_argument("--across", action="store_true", help="measure also on the sets not pre-trained on")
    parser.add_argument("--choosing", action="store_true", help="measure on training subjects: for choosing settings")
    parser.add_argument("--report", action="store_true", help="only the table and figures of what is measured already")
    parser.add_argument("--reference", help="the arm that the others are tested against, in every measure")
    parser.add_argument("--quick", action="store_true", help="a smoke run: its numbers mean nothing")
    given = parser.parse_args(arguments)
    plan = against(read_plan(given.plan, given.quick), given.reference)
    chosen = (given.arms, given.pretrained_on, given.sets, given.seeds, given.measures, given.across, given.labelled)
    units = list_units(plan, *chosen)
    given.out.mkdir(parents=True, exist_ok=True)
    evidence = Evidence(plan, given.data.resolve(), given.out.resolve(), given.choosing)
    if not given.report:
        evidence.run(units)
    evidence.report(units)


if __name__ == "__main__":
    show_one_line()
    main()
