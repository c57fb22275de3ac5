# Copyright (c) GVSL bundle contributors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""
Kill a training at random moments, take it up again, and compare its losses and weights with those of one that was never
interrupted: ``python benchmarks/kill_and_resume.py OUT --kills 20``. They must agree bit for bit (on CPUs).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

REPOSITORY = Path(__file__).resolve().parents[1]
CONFIGS = REPOSITORY / "bundle" / "configs"
SETTINGS = {
    "pixdim": [12.0, 12.0, 12.0],
    "spatial_size": [24, 20, 20],
    "intensity": "window",
    "features": [4, 8, 16],
    "symmetric": True,
    "epochs": 6,
    "epoch_length": 6,
    "validation_pairs": 2,
    "picture_interval": 2,
    "resume": True,
}


def command(data: Path, output: Path, args: argparse.Namespace) -> list[str]:
    """The command that trains, or goes on, in ``output``."""
    names = ["train", "multi_gpu_train"] if args.processes > 1 else ["train"]
    options = {
        "bundle_root": REPOSITORY / "bundle",
        "config_file": str([str(CONFIGS / f"{name}.json") for name in names]),
        "dataset_dir": data,
        "output_dir": output,
        "num_workers": args.workers,
        "checkpoint_interval": args.checkpoint_interval,
        **SETTINGS,
    }
    launcher = ["torch.distributed.run", "--standalone", f"--nproc_per_node={args.processes}", "-m"]
    start = [sys.executable, "-m", *(launcher if args.processes > 1 else []), "monai.bundle", "run"]
    return [*start, *(part for name, value in options.items() for part in (f"--{name}", str(value)))]


def train(data: Path, output: Path, args: argparse.Namespace, seconds: float | None = None) -> float | None:
    """
    Train until the end, or until the kill so many seconds after the program has got ready to train.

    Returns:
        how many seconds the training took, without getting ready; None for one that was killed.
    """
    before = set(output.rglob("*tfevents*"))
    with output.with_suffix(".log").open("a") as log:
        process = subprocess.Popen(
            command(data, output, args), stdout=log, stderr=log, start_new_session=True, cwd=REPOSITORY
        )
        while process.poll() is None and set(output.rglob("*tfevents*")) == before:
            time.sleep(0.05)
        begun = time.monotonic()
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            for pid in [*groups_of(process.pid), process.pid]:  # with the workers that load data
                os.killpg(pid, signal.SIGKILL)
            process.wait()
            return None
    if code:
        sys.exit(f"the training failed, see {output.with_suffix('.log')}")
    return time.monotonic() - begun


def groups_of(parent: int) -> list[int]:
    """The processes that torchrun has started; each leads a group of its own."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            _, ppid, group = (entry / "stat").read_text().rsplit(")", 1)[1].split()[:3]
        except (OSError, ValueError):
            continue  # ended meanwhile
        if int(ppid) == parent and group == entry.name:
            found.append(int(entry.name))
    return found


def state(folder: Path) -> tuple[dict, dict, str]:
    """What must agree: the checkpoint but for the state of random generators, the best model, the history."""
    checkpoint = torch.load(folder / "checkpoint.pt", weights_only=True)
    checkpoint.pop("random_state")
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


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run the command.

    Args:
        argv: its arguments, those of the process by default.

    Returns:
        the exit code: 0 when every run ended like the uninterrupted one.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("out", type=Path, help="folder, made if missing")
    parser.add_argument("--kills", type=int, default=20, help="how many")
    parser.add_argument("--processes", type=int, default=1, help="that train together")
    parser.add_argument("--workers", type=int, default=1, help="that load data, in each process")
    parser.add_argument("--checkpoint_interval", type=int, default=2, help="steps between checkpoints in an epoch")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    data = args.out / "phantoms"
    if not data.is_dir():
        tool = REPOSITORY / "tools" / "make_phantoms.py"
        subprocess.run([sys.executable, tool, data, "--subjects", "6", "--spacing", "10"], check=True)
    duration = train(data, args.out / "whole", args) or 0.0
    whole, moments = state(args.out / "whole"), random.Random(args.seed)
    kills: list[dict] = []
    runs = failed = 0
    while len(kills) < args.kills:
        output = args.out / f"killed_{runs}"
        while len(kills) < args.kills:
            seconds = moments.uniform(0, duration)
            if train(data, output, args, seconds) is not None:
                break
            reached = "nothing saved"
            if (output / "checkpoint.pt").exists():
                kept = torch.load(output / "checkpoint.pt", weights_only=True)
                reached = f"epoch {kept['epoch']}, step {kept['step']}"
            kills.append({"run": runs, "seconds": round(seconds, 1), "kept": reached})
            print(f"killed run {runs} after {seconds:.1f} s of {duration:.0f}: {reached}", flush=True)
        train(data, output, args)
        equal = same(whole, state(output))
        failed += not equal
        print(f"run {runs} ended {'the same' if equal else 'DIFFERENTLY'}", flush=True)
        runs += 1
    result = {"kills": kills, "runs": runs, "runs_that_ended_differently": failed, "seconds_of_a_run": duration}
    (args.out / "kills.json").write_text(json.dumps(result, indent=4) + "\n", encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
