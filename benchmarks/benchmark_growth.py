# SPDX-License-Identifier: Apache-2.0

"""How cost grows with the volume, the channels, the batch, the cohort and the processes; what the options change."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from benchmark_cases import Training, interleaved, peak_memory
from benchmark_runs import processes_and_epochs

BASE: dict[str, Any] = {"features": [8, 16, 32, 64], "spatial_size": [48] * 3, "pixdim": [5.0] * 3, "batch_size": 1}
BASE["known_share"] = 1.0
"""Of the two kinds of steps the one that takes more memory."""
CHANGES: dict[str, list[Any]] = {
    "spatial_size": [[32] * 3, [48] * 3, [64] * 3, [96] * 3],
    "features": [[8, 16, 32, 64], [16, 32, 64, 128], [32, 64, 128, 256], [32, 64, 128, 256, 512]],
    "batch_size": [1, 2, 4],
}
COHORTS = (10, 100, 1000)


def growth(part: str, phantoms: Callable[..., Path], out: Path, repeats: int) -> tuple[dict[str, Any], str]:
    """
    Args:
        part: "steps", over the size of volume, network and batch; "cohorts", over the number of scans; "trainings",
            over processes and epochs. The latter two are timed by the clock, on a machine that does nothing else.
        phantoms: makes a cohort: folder, number of subjects, spacing.
        out: folder of the cohorts and caches.
        repeats: rounds, whose medians are taken.

    Returns:
        numbers, and tables of them.
    """
    if part == "steps":
        return _steps(phantoms(out / "phantoms"), out, repeats)
    if part == "cohorts":
        return _cohorts(phantoms, out)
    return processes_and_epochs(phantoms(out / "phantoms"), out / "trainings", BASE)


def _steps(data: Path, out: Path, repeats: int) -> tuple[dict[str, Any], str]:
    steps = []
    for name, values in CHANGES.items():
        for value in values:
            training = Training(data, out, epoch_length=1000, **{**BASE, name: value})
            taken = interleaved({"step": training.step}, repeats)["step"]
            steps.append(
                {"changed": name, "to": value, "seconds": taken, "bytes": peak_memory(training.step, training.network)}
            )
    text = ["| changed | to | CPU seconds a step | memory a step, MB |", "|---|---|---|---|"]
    text += [f"| {r['changed']} | {r['to']} | {r['seconds']:.3g} | {r['bytes'] / 1e6:.0f} |" for r in steps]
    return {"steps": steps}, "\n".join(text)


def _cohorts(phantoms: Callable[..., Path], out: Path) -> tuple[dict[str, Any], str]:
    cohorts = [_cohort(phantoms(out / f"cohort_{n}", n, 12.0), out / f"cache_{n}", n) for n in COHORTS]
    text = [
        "| subjects | first start, s | second start, s | cache on disk, MB | memory, MB |",
        "|---|---|---|---|---|",
    ]
    text += [
        f"| {r['subjects']} | {r['first']:.3g} | {r['second']:.3g} | {r['cache'] / 1e6:.0f} | {r['memory'] / 1e6:.0f} |"
        for r in cohorts
    ]
    return {"cohorts": cohorts}, "\n".join(text)


def _cohort(data: Path, cache: Path, subjects: int) -> dict[str, float]:
    """Seconds until every scan is prepared, with an empty and with a full cache on disk, each in a fresh process."""
    code = (
        "import sys; sys.path[:0] = sys.argv[1:3]; from benchmark_growth import prepare_all; "
        "print(prepare_all(*sys.argv[3:]))"
    )
    here = Path(__file__).resolve().parent
    command = [sys.executable, "-c", code, str(here), str(here.parent / "bundle"), str(data), str(cache)]
    first, second = (
        subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-2:] for _ in range(2)
    )
    size = sum(path.stat().st_size for path in cache.rglob("*.pt"))
    return {
        "subjects": subjects,
        "first": float(first[0]),
        "second": float(second[0]),
        "cache": size,
        "memory": float(second[1]),
    }


def prepare_all(data: str, cache: str) -> str:
    """Check and prepare every scan; seconds and peak memory of this process."""
    begun = time.perf_counter()
    training = Training(Path(data), Path(cache), cache_dir=cache, **BASE)
    scans = training.loader.dataset.scans
    for index in range(len(scans)):
        scans[index]
    # on Linux: ``getrusage`` would give the peak of the process that started this one, where that was larger
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return f"{time.perf_counter() - begun} {int(peak[1]) * 1024 if peak else float('nan')}"


def options(data: Path, out: Path, repeats: int) -> tuple[dict[str, Any], str]:
    """
    Args:
        data: folder of phantoms.
        out: see :class:`~benchmark_cases.Training`.
        repeats: rounds, whose medians are taken.

    Returns:
        numbers, and a table of them: time and memory against the default, the largest difference of a loss.
    """
    settings = {**BASE, "features": [16, 32, 64, 128]}
    variants: dict[str, dict[str, Any]] = {
        "default": {},
        "contiguous layout": {"memory_format": torch.contiguous_format},
        "bfloat16": {},
        "torch.compile": {},
        "activations kept": {"activation_checkpointing": False},
    }
    trainings = {name: Training(data, out, epoch_length=1000, **settings, **extra) for name, extra in variants.items()}
    trainings["torch.compile"].trainer.network = torch.compile(trainings["torch.compile"].network)
    trainings["bfloat16"].bfloat16 = True
    losses: dict[str, float] = {}
    for name in variants:  # of the same pair, from the same weights
        trainings[name].step()
        losses[name] = float(trainings[name].trainer.state.output["loss"])
    times = interleaved({name: trainings[name].step for name in variants}, repeats)
    rows = {
        name: {
            "time": times[name] / times["default"],
            "memory": peak_memory(trainings[name].step, trainings[name].network),
            "difference": abs(losses[name] / losses["default"] - 1),
        }
        for name in variants
    }
    text = ["| option | time | memory | relative difference of the first loss |", "|---|---|---|---|"]
    text += [
        f"| {name} | {row['time']:.2f} | {row['memory'] / rows['default']['memory']:.2f} | {row['difference']:.1e} |"
        for name, row in rows.items()
    ]
    return {"options": rows, "default_seconds": times["default"]}, "\n".join(text)
