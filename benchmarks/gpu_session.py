# SPDX-License-Identifier: Apache-2.0

"""
The measurements of ``benchmarks/gpu_session.sh``: ``python benchmarks/gpu_session.py OUT --config_file FILES
--device cuda --id value ...``.

One step of a small network from the same weights and pair on the CPU and on the device; some steps of the whole
network under ``torch.profiler``. Writes ``session.json`` and ``profile.txt``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bundle"))

from scripts.command_line import as_fire_reads
from scripts.errors import InputError, show_one_line
from scripts.files import write_text

SMALL = {"features": [8, 16, 32], "spatial_size": [24, 24, 24], "bfloat16": False, "activation_checkpointing": False}
TOLERANCE = 0.01
"""Of a term of the loss, relative: convolutions of a GPU round to TF32."""
EPOCH = 100


def make_trainer(files: list[str], options: dict[str, Any], device: str, out: Path) -> Any:
    """The trainer of the configuration, without handlers."""
    parser = ConfigParser()
    parser.read_config(files)
    parser.update({**options, "num_workers": 0, "output_dir": str(out), "device": f"$torch.device('{device}')"})
    parser["train#handlers"] = []
    torch.manual_seed(0)
    return parser.get_parsed_content("train#trainer")


def losses(trainer: Any, batch: Any) -> dict[str, float]:
    """The terms of one batch, without a step."""
    trainer.network.train()
    images, targets, args, kwargs = trainer.prepare_batch(batch, trainer.state.device, False)
    terms = trainer.terms_function(trainer.inferer(images, trainer.network, *args, **kwargs), targets)
    return {name: float(term.detach()) for name, term in terms.items()}


def same_loss(files: list[str], options: dict[str, Any], device: str, out: Path) -> dict[str, dict[str, float]]:
    """
    The terms of a small case on the CPU and on the device.

    Raises:
        InputError: where they differ by more than :data:`TOLERANCE`.
    """
    found: dict[str, dict[str, float]] = {}
    for name, where in {"cpu": "cpu", "device": device}.items():
        trainer = make_trainer(files, {**options, **SMALL}, where, out)
        found[name] = losses(trainer, next(iter(trainer.data_loader)))
    for term, value in found["cpu"].items():
        if abs(found["device"][term] - value) > TOLERANCE * max(abs(value), 0.1):
            other = found["device"][term]
            raise InputError(f"{term} is {value:.6f} on the CPU and {other:.6f} on {device}: do not train there")
    return found


def profiled(trainer: Any, steps: int, device: str) -> tuple[dict[str, float], str]:
    """Seconds and peak memory of a step, after one to warm up, and the table of the profiler."""
    cuda = device.startswith("cuda")
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    batches = iter(trainer.data_loader)
    trainer.state.max_epochs, trainer.state.epoch_length = 1, steps + 1
    batch = next(batches)

    def step() -> None:
        trainer._iteration(trainer, batch)
        if cuda:
            torch.cuda.synchronize()

    step()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    for _ in range(steps):
        step()
    seconds = (time.perf_counter() - started) / steps
    with profile(activities=activities, profile_memory=True) as found:
        step()
    table = found.key_averages().table(sort_by="cuda_time_total" if cuda else "cpu_time_total", row_limit=40)
    peak = torch.cuda.max_memory_allocated() / 2**30 if cuda else float("nan")
    return {"seconds_per_step": seconds, "peak_gib": peak}, table


def main(arguments: list[str] | None = None) -> None:
    """
    Run the command.

    Args:
        arguments: its arguments, those of the process by default.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder, made if missing")
    parser.add_argument("--config_file", required=True, help="as of python -m monai.bundle run")
    parser.add_argument("--device", default="cuda", help="where to measure")
    parser.add_argument("--minutes", type=float, default=20, help="of the training that is planned")
    parser.add_argument("--steps", type=int, help="of that training, and of the measurement at most")
    given, ids = parser.parse_known_args(arguments)
    if given.device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError("there is no GPU that torch can use: pass DEVICE=cpu, or install a torch built for it")
    files = as_fire_reads(given.config_file)
    options = {name[2:]: as_fire_reads(value) for name, value in zip(ids[::2], ids[1::2], strict=True)}
    given.out.mkdir(parents=True, exist_ok=True)
    terms = same_loss(files, options, given.device, given.out)
    print(
        f"the small case: loss {terms['cpu']['loss']:.5f} on the CPU, {terms['device']['loss']:.5f} on {given.device}"
    )
    steps = min(given.steps or 10, 10)
    numbers, table = profiled(make_trainer(files, options, given.device, given.out), steps, given.device)
    write_text(table + "\n", given.out / "profile.txt")
    planned = given.steps or int(60 * given.minutes / numbers["seconds_per_step"])
    length = min(EPOCH, planned)
    about = {
        "device": torch.cuda.get_device_name() if given.device.startswith("cuda") else "cpu",
        "torch": torch.__version__,
        **{name: None if value != value else value for name, value in numbers.items()},
        "terms": terms,
        "epoch_length": length,
        "epochs": max(1, planned // length),
    }
    write_text(json.dumps(about, indent=4) + "\n", given.out / "session.json")
    print(f"a step takes {numbers['seconds_per_step']:.3f} s; planned: {planned} steps")


if __name__ == "__main__":
    show_one_line()
    main()
