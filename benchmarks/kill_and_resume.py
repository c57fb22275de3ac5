# SPDX-License-Identifier: Apache-2.0

"""
Kill a training again and again until it ends, and compare its losses, weights and optimiser with those of one that was
never interrupted: ``python benchmarks/kill_and_resume.py OUT --kills 20``. They must agree bit for bit (on CPUs).

Only kills that ended a training before its last epoch was saved are counted. They come at a random moment, at the
change of an epoch, or while a checkpoint is being written, and hit all processes at once (as when the power fails), one
of the processes that train, or one that loads data (as when memory runs out).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from benchmark_runs import REPOSITORY, start_training

SETTINGS: dict[str, Any] = {
    "pixdim": [12.0, 12.0, 12.0],
    "spatial_size": [24, 20, 20],
    "intensity": "window",
    "features": [4, 8, 16],
    "epochs": 6,
    "val_interval": 1,
    "epoch_length": 10,
    "validation_pairs": 2,
    "picture_interval": 2,
    "resume": True,
}
MOMENTS = ("random", "change of an epoch", "writing a checkpoint")
VICTIMS = ("all", "trainer", "loader")
RUNS = 4
"""At least, among which the kills are shared out: the last steps of a run could be killed for ever."""


class Training:
    """
    A training that goes on in a folder, as a user starts it.

    Args:
        data: folder of scans.
        output: of the run; what it prints is added to a log beside it.
        processes: that train together.
        workers: that load data, in each process.
        checkpoint_interval: steps between checkpoints within an epoch.
    """

    def __init__(self, data: Path, output: Path, processes: int, workers: int, checkpoint_interval: int) -> None:
        self.output, self.log, self.processes = output, output.with_suffix(".log"), processes
        options = {
            "dataset_dir": data,
            "output_dir": output,
            "num_workers": workers,
            "checkpoint_interval": checkpoint_interval,
            **SETTINGS,
        }
        before = self.log.stat().st_size if self.log.exists() else 0
        self.written_before = self.part_stamp()
        self.process = start_training(processes, options, self.log)
        while self.running and b"step/s]" not in self.log.read_bytes()[before:]:  # its progress bar
            time.sleep(0.05)

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while self.running and time.monotonic() < end:
            time.sleep(0.005)

    def wait_for_change_of_epoch(self) -> None:
        """Until the next row of the history, which is written after the validation and before the checkpoint."""
        path = self.output / "history.csv"
        before = path.stat().st_mtime_ns if path.exists() else 0
        while self.running and not (path.exists() and path.stat().st_mtime_ns > before):
            time.sleep(0.0005)

    def part_stamp(self) -> int | None:
        """When the file was last written that becomes the checkpoint; None without one."""
        try:
            return (self.output / ".checkpoint.pt.part").stat().st_mtime_ns
        except FileNotFoundError:
            return None

    def is_writing(self) -> bool:
        """Whether a checkpoint of this process, not of one killed before, is being written or was left half-written."""
        return self.part_stamp() not in (None, self.written_before)

    def wait_for_writing(self) -> None:
        while self.running and not self.is_writing():
            time.sleep(0.0002)

    def kill(self, victim: str, draw: random.Random) -> str:
        """
        Kill, and wait until all has ended.

        Args:
            victim: one of ``VICTIMS``.
            draw: chooses among several.

        Returns:
            whom it was; all processes where there was no such one.
        """
        trainers = children(self.process.pid) if self.processes > 1 else [self.process.pid]
        loaders = [pid for trainer in trainers for pid in children(trainer)]
        chosen = {"all": [], "trainer": trainers, "loader": loaders}[victim]
        if chosen:
            send(draw.choice(chosen))
            self.process.wait(300)  # the others notice, and end
        for pid in {*trainers, self.process.pid}:  # each leads a group of processes
            send(pid, whole_group=True)
        self.process.wait(300)
        return victim if chosen else "all"


def send(pid: int, whole_group: bool = False) -> None:
    """Kill a process or its group; it may be gone already."""
    with suppress(ProcessLookupError):
        (os.killpg if whole_group else os.kill)(pid, signal.SIGKILL)


def children(parent: int) -> list[int]:
    """The processes that another one has started."""
    try:
        return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
    except OSError:
        return []  # ended meanwhile


def progress(output: Path) -> tuple[int, int]:
    """Epochs and steps of the next one that are saved."""
    if not (output / "checkpoint.pt").exists():
        return 0, 0
    kept = torch.load(output / "checkpoint.pt", weights_only=True)
    return kept["epoch"], kept["step"]


def state(folder: Path) -> tuple[dict, dict, str]:
    """What must agree: the checkpoint, the best model, the history."""
    checkpoint = torch.load(folder / "checkpoint.pt", weights_only=True)
    return checkpoint, torch.load(folder / "model.pt", weights_only=True), (folder / "history.csv").read_text()


def same(first: Any, second: Any) -> bool:
    """Whether nested containers of tensors agree bit for bit."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return list(first) == list(second) and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(same(a, b) for a, b in zip(first, second, strict=True))
    return first == second


def interrupt(training: Training, draw: random.Random, seconds: float) -> dict[str, Any] | None:
    """
    Kill a training.

    Args:
        training: that has begun.
        draw: chooses when and whom.
        seconds: it will last.

    Returns:
        what was done; None where the training had ended before.
    """
    begun, moment, victim = time.monotonic(), draw.choice(MOMENTS), draw.choice(VICTIMS)
    training.wait(draw.uniform(0, 0.6 * seconds))
    if moment == "change of an epoch":
        training.wait_for_change_of_epoch()
        training.wait(draw.uniform(0, 0.05))
    elif moment == "writing a checkpoint":
        training.wait_for_writing()
    if not training.running:
        return None
    after = round(time.monotonic() - begun, 2)
    victim = training.kill(victim, draw)
    return {"moment": moment, "victim": victim, "seconds": after, "half_written": training.is_writing()}


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run the command.

    Args:
        argv: its arguments, those of the process by default.

    Returns:
        the exit code: 0 when every run ended like the uninterrupted one.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder, made if missing")
    parser.add_argument("--kills", type=int, default=20, help="how many (20)")
    parser.add_argument("--processes", type=int, default=1, help="that train together (1)")
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[1, 2], help="that load data, in each process; runs take turns (1 2)"
    )
    parser.add_argument("--checkpoint_interval", type=int, default=2, help="steps between checkpoints in an epoch (2)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (0)")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    data = args.out / "phantoms"
    if not data.is_dir():
        tool = REPOSITORY / "tools" / "make_phantoms.py"
        subprocess.run([sys.executable, tool, data, "--subjects", "6", "--spacing", "10"], check=True)

    def start(name: str, run: int) -> Training:
        workers = args.workers[run % len(args.workers)]
        return Training(data, args.out / name, args.processes, workers, args.checkpoint_interval)

    whole, begun = start("whole", 0), time.monotonic()
    if whole.process.wait():
        sys.exit(f"the training failed, see {whole.log}")
    duration, expected, draw = time.monotonic() - begun, state(whole.output), random.Random(args.seed)
    kills: list[dict[str, Any]] = []
    runs: list[dict[str, Any]] = []
    while len(kills) < args.kills:
        kept, before = 0.0, len(kills)
        while True:
            training = start(f"killed_{len(runs)}", len(runs))
            more = len(kills) < min(args.kills, before + math.ceil(args.kills / RUNS))
            killed = interrupt(training, draw, (1 - kept) * duration) if more else None
            if training.process.wait() == 0:
                break
            if killed is None:
                sys.exit(f"the training failed, see {training.log}")
            epoch, step = progress(training.output)
            kept = (epoch + step / SETTINGS["epoch_length"]) / SETTINGS["epochs"]
            if kept < 1:  # else only its summary was cut short
                kills.append({"run": len(runs), **killed, "kept": f"epoch {epoch}, step {step}"})
                print(", ".join(f"{name} {value}" for name, value in kills[-1].items()), flush=True)
        equal = same(expected, state(training.output))
        workers = args.workers[len(runs) % len(args.workers)]
        runs.append({"workers": workers, "kills": len(kills) - before, "same": equal})
        print(f"run {len(runs) - 1} ended {'the same' if equal else 'DIFFERENTLY'}", flush=True)
    result = {"processes": args.processes, "seconds_of_a_run": round(duration, 1), "runs": runs, "kills": kills}
    (args.out / "kills.json").write_text(json.dumps(result, indent=4) + "\n", encoding="utf-8")
    return 0 if all(run["same"] for run in runs) else 1


if __name__ == "__main__":
    sys.exit(main())
