# SPDX-License-Identifier: Apache-2.0

"""Whole trainings, started as a user starts them: with one or more processes, watched epoch by epoch."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
CONFIGS = REPOSITORY / "bundle" / "configs"


def start_training(processes: int, options: Mapping[str, Any], log: Path) -> subprocess.Popen:
    """
    Start a training, in a session of its own.

    Args:
        processes: that train together.
        options: ids of the configuration.
        log: file that what it prints is added to.
    """
    names = ["train", "multi_gpu_train"] if processes > 1 else ["train"]
    given = {
        "bundle_root": REPOSITORY / "bundle",
        "config_file": str([str(CONFIGS / f"{name}.json") for name in names]),
        **options,
    }
    launcher = ["torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", "-m"]
    start = [sys.executable, "-m", *(launcher if processes > 1 else []), "monai.bundle", "run"]
    arguments = [part for name, value in given.items() for part in (f"--{name}", str(value))]
    with log.open("a") as file:
        return subprocess.Popen([*start, *arguments], stdout=file, stderr=file, start_new_session=True, cwd=REPOSITORY)


def resident(pid: int) -> int:
    """Bytes of memory that a process holds now; 0 where the system does not tell."""
    try:
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


def watch(processes: int, output: Path, options: Mapping[str, Any]) -> list[dict[str, float]]:
    """
    Train to the end.

    Args:
        processes: that train together.
        output: folder of the run, which must not exist.
        options: ids of the configuration besides.

    Returns:
        of each epoch the ``seconds`` by the clock and the ``memory`` of the first process at its end, in bytes.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    log, history = output.with_suffix(".log"), output / "history.csv"
    training = start_training(processes, {"output_dir": output, **options}, log)
    epochs: list[dict[str, float]] = []
    begun = time.monotonic()
    while training.poll() is None:
        time.sleep(0.02)
        rows = len(history.read_text().splitlines()) - 1 if history.exists() else 0
        if rows > len(epochs):
            now = time.monotonic()
            epochs.append({"seconds": now - begun, "memory": resident(training.pid)})
            begun = now
    if training.returncode:
        sys.exit(f"the training failed, see {log}: {log.read_text().strip().splitlines()[-1]}")
    return epochs


def processes_and_epochs(data: Path, out: Path, settings: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """
    Time of an epoch over the number of processes, and memory over the number of epochs.

    Args:
        data: folder of phantoms.
        out: folder; the runs of an earlier time in it make room.
        settings: ids of the configuration.

    Returns:
        numbers, and tables of them.
    """
    common = {"dataset_dir": data, "validation_pairs": 2, "picture_interval": 100, "val_interval": 100, **settings}
    shutil.rmtree(out, ignore_errors=True)
    by_processes = []
    for processes in (1, 2):
        epochs = watch(processes, out / f"processes_{processes}", {**common, "epochs": 5, "epoch_length": 12})
        taken = median(epoch["seconds"] for epoch in epochs[1:])
        by_processes.append({"processes": processes, "seconds": taken, "pairs_a_second": 12 * processes / taken})
    epochs = watch(1, out / "epochs", {**common, "epochs": 60, "epoch_length": 4, "num_workers": 1})
    by_epochs = [{"epoch": n, "memory": epochs[n - 1]["memory"]} for n in (1, 2, 5, 10, 20, 40, 60) if n <= len(epochs)]
    text = ["| processes, one thread each | pairs a second | of one process's |", "|---|---|---|"]
    text += [
        f"| {row['processes']} | {row['pairs_a_second']:.3g} "
        f"| {row['pairs_a_second'] / by_processes[0]['pairs_a_second']:.2f} |"
        for row in by_processes
    ]
    text += ["", "| epochs done | memory of the training process, MB |", "|---|---|"]
    text += [f"| {row['epoch']} | {row['memory'] / 1e6:.0f} |" for row in by_epochs]
    return {"processes": by_processes, "epochs": by_epochs}, "\n".join(text)
