# SPDX-License-Identifier: Apache-2.0
"""Several processes that train together, one a GPU, as ``torchrun`` starts them."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from datetime import timedelta
from pydoc import locate
from typing import Any, cast

import ignite.distributed as idist
import torch
from monai.data import DistributedSampler
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Dataset, Sampler, SequentialSampler

from ..errors import InputError


def start(timeout_minutes: float = 60) -> None:
    """
    Join the other processes: nccl where there are GPUs, gloo on CPUs.

    Args:
        timeout_minutes: how long one process waits for another, for example until its first scans are prepared.

    Raises:
        InputError: when ``torchrun`` has not started this process, or has started more than there are GPUs.
    """
    if "LOCAL_RANK" not in os.environ:
        raise InputError(
            "multi_gpu_train.json needs several processes: start it with "
            "torchrun --standalone --nnodes=1 --nproc_per_node=<GPUs> -m monai.bundle run ..."
        )
    cuda = torch.cuda.is_available()
    local, count = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if cuda and local >= count:
        raise InputError(f"process {local + 1} of this machine has no GPU of {count}: lower --nproc_per_node")
    if cuda:
        torch.cuda.set_device(local)
    arguments: dict[str, Any] = {"timeout": timedelta(minutes=timeout_minutes)}
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True" and os.environ.get("GROUP_WORLD_SIZE") == "1":
        # torchrun --max-restarts keeps its store: the addresses in it are those of processes that are gone
        store = distributed.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
        prefixed = distributed.PrefixStore(f"start_{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
        names = {"rank": "RANK", "world_size": "WORLD_SIZE"}
        arguments |= {"store": prefixed, **{key: int(os.environ[name]) for key, name in names.items()}}
    distributed.init_process_group("nccl" if cuda else "gloo", **arguments)
    idist.sync()  # once: ignite's metrics would look for the group, and make one of their own, at each call


def stop(network: DistributedDataParallel) -> None:
    """
    Part from the other processes, when all are ready.

    Args:
        network: trained with them, not to be called any more.
    """
    idist.barrier()
    if sys.version_info < (3, 14):
        # It keeps the group, and so gloo's threads, beyond the group's own end: one that frees its last tensor while
        # the interpreter ends aborts the process (github.com/pytorch/pytorch/pull/179291, not merged). 3.14 waits.
        for keeps_group in ("process_group", "reducer", "logger"):
            setattr(network, keeps_group, None)
    idist.finalize()


def local_device() -> torch.device:
    """This process' GPU, or the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def any_rank(flag: bool) -> bool:
    """Whether the flag is set in one process at least; all must ask together."""
    return bool(idist.all_reduce(int(flag), op="MAX"))


def on_first_rank(function: str, **arguments: Any) -> Any:
    """
    Call a function in the first process and give its result to all: thousands of scans need to be checked only once.

    Args:
        function: its dotted name.
        arguments: its arguments.

    Returns:
        what it returned, plain containers.

    Raises:
        InputError: in every process, when the first one met it.
    """
    answer: list[Any] = [None, None]
    if idist.get_rank() == 0:
        try:
            answer[0] = cast(Callable, locate(function))(**arguments)
        except InputError as error:
            answer[1] = str(error)
    if idist.get_world_size() > 1:
        distributed.broadcast_object_list(answer, src=0)
    if answer[1] is not None:
        raise InputError(answer[1])
    return answer[0]


def validation_sampler(dataset: Dataset) -> Sampler:
    """
    Each case for one process. With fewer cases than processes every process measures all of them: none may be idle,
    and an average over equal parts is still right.

    Args:
        dataset: cases to be measured.

    Returns:
        sampler of this process' cases.
    """
    if len(cast(Any, dataset)) < idist.get_world_size():
        return SequentialSampler(cast(Any, dataset))
    return DistributedSampler(dataset, even_divisible=False, shuffle=False)


def is_lost_process(error: BaseException | None) -> bool:
    """Whether an error says that another process is gone, or does not answer any more."""
    if idist.get_world_size() == 1 or not isinstance(error, RuntimeError):
        return False
    kind = isinstance(error, distributed.DistError)
    return kind or re.search(r"gloo|NCCL|Connection (closed|reset) by peer", str(error)) is not None
