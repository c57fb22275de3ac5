# SPDX-License-Identifier: Apache-2.0

"""Several processes on the CPU: they train what one process trains, and end well when one is lost."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import TINY
from scripts.errors import user_message
from scripts.files import load_file
from support import TORCHRUN

SETTINGS = {**TINY, "epochs": 3, "epoch_length": 5, "validation_pairs": 3, "picture_interval": 3}
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def command(repository, cohort):
    """The command of two processes on the made-up cohort, or of one process without torchrun."""

    def make(
        output: Path, processes: int = 2, launcher: tuple[str, ...] = (), overlays: tuple[str, ...] = (), **settings
    ) -> list[str]:
        configs = repository / "bundle" / "configs"
        names = ["train", *overlays, *(["multi_gpu_train"] if processes > 1 else [])]
        options = {
            "bundle_root": repository / "bundle",
            "config_file": str([str(configs / f"{name}.json") for name in names]),
            "dataset_dir": cohort,
            "output_dir": output,
            **SETTINGS,
            **settings,
        }
        start = [*TORCHRUN, *launcher, "-m"] if processes > 1 else ["-m"]
        given = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        return [sys.executable, *start, "monai.bundle", "run", *given]

    return make


@pytest.fixture(scope="module")
def run(command):
    """Run it; returns what it left."""

    def start(output: Path, check: bool = True, **settings) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command(output, **settings), env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    return start


@pytest.fixture(scope="module")
def two(run, tmp_path_factory):
    """The folder of two processes with a batch of one pair each."""
    folder = tmp_path_factory.mktemp("two")
    run(folder)
    return folder


def history(folder: Path) -> list[dict[str, float]]:
    with (folder / "history.csv").open(newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def test_two_processes_train_what_one_trains(run, tmp_path):
    """
    Half the batch each: losses, measures and weights are equal up to the rounding of sums (1e-4 of their size in the
    first epoch, 2e-3 later, 1e-3 for what is matched; each step adds its own); files are written once, and what is
    measured is measured on the pairs of both. With heads whose maps are continuous: rounding moves the nearest place.
    """
    two = tmp_path / "two"
    run(two, overlays=("correlation_head",))
    tmp_path = tmp_path / "one"
    run(tmp_path, processes=1, batch_size=2, overlays=("correlation_head",))
    for epoch, (alone, together) in enumerate(zip(history(tmp_path), history(two), strict=True)):
        for name in ("dice_after", "ncc_after"):
            assert together.pop(name) == pytest.approx(alone.pop(name), rel=1e-3)
        voxel = 100 / 24**3  # rounding decides of one whether it folds
        assert together.pop("folded_percentage") == pytest.approx(alone.pop("folded_percentage"), abs=1.5 * voxel)
        assert together == pytest.approx(alone, rel=2e-3 if epoch else 1e-4, abs=1e-5)
    first, second = (load_file(folder / "checkpoint.pt")["network"] for folder in (tmp_path, two))
    assert list(first) == list(second)
    for name, weight in first.items():
        torch.testing.assert_close(second[name], weight, rtol=2e-3, atol=2e-4, msg=name)
    names = [{p.name for p in folder.rglob("*") if "tfevents" not in p.name} for folder in (tmp_path, two)]
    assert names[0] == names[1]


def wait_for(path: Path, process: subprocess.Popen, seconds: float = 120) -> None:
    end = time.time() + seconds
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.time() < end, f"{path} did not come"
        time.sleep(0.02)


def child(process: subprocess.Popen, rank: int) -> int:
    """The training process of that rank, which torchrun has started."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return next(int(pid) for pid in children if f"\0RANK={rank}\0" in Path(f"/proc/{pid}/environ").read_text())


def assert_same_course(first: Path, second: Path) -> None:
    assert history(first) == history(second)
    weights = [load_file(folder / "checkpoint.pt")["network"] for folder in (first, second)]
    assert all(torch.equal(weight, weights[1][name]) for name, weight in weights[0].items())


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the processes in /proc")
class TestStopped:
    def test_a_killed_process_ends_the_other_and_torchrun_starts_both_again(self, command, two, tmp_path):
        """One line says what is gone and what is kept; with --max-restarts the run then ends as if nothing was."""
        process = subprocess.Popen(
            command(tmp_path, resume=True, launcher=("--max-restarts=1",)),
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        wait_for(tmp_path / "checkpoint_0001.pt", process)
        os.kill(child(process, rank=1), signal.SIGKILL)
        shown, _ = process.communicate(timeout=300)
        assert process.returncode == 0, shown
        assert "process 0: error: another process of this training is gone, so this one ends; saved in" in shown
        assert f"resumed from {tmp_path / 'checkpoint.pt'} after epoch" in shown
        assert_same_course(tmp_path, two)

    def test_signals_to_all_processes_save_within_an_epoch(self, command, run, two, tmp_path):
        """Ctrl-C, then what Slurm sends: both processes stop after the same step; averages of both go on."""
        for epoch, number in enumerate((signal.SIGINT, signal.SIGTERM), start=1):
            process = subprocess.Popen(
                command(tmp_path, num_workers=1, resume=True),
                env=ENVIRONMENT,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            wait_for(tmp_path / f"checkpoint_{epoch:04}.pt", process)
            os.killpg(process.pid, number)  # also to those that load data
            _, errors = process.communicate(timeout=120)
            assert "interrupted: saved in" in errors, errors
            assert load_file(tmp_path / "checkpoint.pt")["epoch"] < 3
        run(tmp_path, resume=True)
        assert_same_course(tmp_path, two)


SLOW_THREADS = """
import os, sys
import torch
sys.path.insert(0, sys.argv[1])
from scripts.training import start, stop

start()
network = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 1))
network(torch.ones(1, 2)).sum().backward()
for thread in map(int, os.listdir("/proc/self/task")):
    os.sched_setaffinity(thread, {min(os.sched_getaffinity(0))})
    if "gloo_runloop" in open(f"/proc/self/task/{thread}/comm").read():
        os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))
torch.distributed.all_reduce(torch.ones(1))
stop(network)
print([open(f"/proc/self/task/{thread}/comm").read() for thread in os.listdir("/proc/self/task")])
"""


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="slows threads down with Linux' scheduler")
def test_threads_of_the_group_end_before_the_interpreter(repository, tmp_path):
    """However late the threads come to run: one that frees a tensor while the interpreter ends aborts the process."""
    (tmp_path / "script.py").write_text(SLOW_THREADS)
    done = subprocess.run(
        [sys.executable, *TORCHRUN, tmp_path / "script.py", repository / "bundle"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "gloo" not in done.stdout


def test_a_mistake_is_told_by_every_process(run, tmp_path):
    done = run(tmp_path, check=False, dataset_dir=tmp_path / "nowhere")
    assert done.returncode != 0
    assert "process 0: error: dataset_dir" in done.stderr or "process 1: error: dataset_dir" in done.stderr


def test_without_torchrun(workflow, cohort, tmp_path):
    made = workflow(cohort, tmp_path, overlays=("multi_gpu_train",))
    with pytest.raises(Exception, match="Failed") as caught:
        made.initialize()
    assert "start it with torchrun" in user_message(caught.value)
